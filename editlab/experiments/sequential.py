"""A reference implementation's sequence of edits, made again: every solve alone, and the whole from step 1 on.

`sequential/{name}.json` holds contexts, hyperparameters and steps (requests, the search of each), and the
`.safetensors` beside it, per step t and layer l, "step{t}.layer{l}.keys" (d_in, n), ".residual" (d_out, n), already
divided by the layers left, ".delta" and ".cumulative" (the weight after the step less the original), in the model's
order. A step edits the weights that the steps before it left, and keeps their keys.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from editlab.core.disk import read_json
from editlab.core.facts import Fact
from editlab.core.records import Trace, ValueTrace
from editlab.editing.moments import SecondMoments
from editlab.methods import Method, method_class
from editlab.methods._history import Earlier, HistoryMethod
from editlab.model.deltas import LowRank
from editlab.model.model import EditableModel

SEQUENTIAL, MOMENTS = "sequential", "second_moment.safetensors"
WITHIN = 1e-4  # relative for ΔW, absolute for losses
METHODS = {"memit": "memit", "encore": "encore", "emmet": "emmet", "alphaedit": "alphaedit", "nas": "alphaedit"}
NAMES = {
    "v_num_grad_steps": "steps",
    "v_lr": "learning_rate",
    "v_weight_decay": "weight_decay",
    "clamp_norm_factor": "clamp",
    "kl_factor": "kl_weight",
    "mom2_update_weight": "moment_weight",
    "update_norm_lambda": "norm_ridge",
    "emmet_lambda": "batch_ridge",
    "L2": "null_ridge",
    "nullspace_threshold": "null_threshold",
}  # the reference code's names of hyperparameters, and ours


@dataclass(frozen=True)
class SequenceRow:
    """One step and layer of a sequence against the reference. Errors of matrices are relative, in Frobenius norm."""

    sequence: str  # name of the file
    step: int
    layer: int
    facts: str
    reference_norm: float  # ‖ΔW‖_F
    norm: float
    solve_error: float  # of ΔW from the reference's keys and residuals, the earlier steps' keys among them
    delta_error: float  # of ΔW, made again from step 1 on
    weight_error: float  # of W - W₀ after the step, likewise
    loss_error: float  # largest difference over loss, NLL, KL and decay in every search of the step
    searches_agree: bool  # forward passes, hits where they are told, and whether a fact was skipped


def disagreements(rows: Sequence[SequenceRow]) -> list[str]:
    """A sentence for each kind of disagreement in each sequence."""
    found = []
    for name in dict.fromkeys(row.sequence for row in rows):
        some = [row for row in rows if row.sequence == name]
        for what, said in (
            ("solve_error", "ΔW from the reference's keys and residuals"),
            ("delta_error", "ΔW"),
            ("weight_error", "the weights' change"),
            ("loss_error", "a loss"),
        ):
            worst = max(some, key=lambda row: (e := getattr(row, what), e != e)[::-1])  # a NaN is the worst
            if not getattr(worst, what) <= WITHIN:
                found.append(
                    f"{name}: {said} is off by {getattr(worst, what):.1e} at step {worst.step}, over {WITHIN:g}"
                )
        if apart := sorted({row.step for row in some if not row.searches_agree}):
            steps = ", ".join(map(str, apart))
            found.append(f"{name}: forward passes, hits or skipped facts differ in step {steps}")
    return found


def method_of(kind: type[Method], hparams: Mapping[str, Any], **more: Any) -> Method:
    """A method from the reference code's own names of its hyperparameters."""
    known = {f.name for f in fields(kind)}
    values = {ours: hparams[theirs] for theirs, ours in NAMES.items() if theirs in hparams and ours in known}
    layers = {"layers": tuple(hparams["layers"])} if "layers" in known else {"layer": hparams["layers"][0]}
    return kind(**layers, **values, **more)


def compare(model: EditableModel, moments: SecondMoments, file: Path) -> list[SequenceRow]:
    """Every step and layer of a sequence, made again. The model is unedited before and afterwards.

    Raises ValueError for a sequence of a method that is not known, of another model or second moment, or incomplete.
    """
    try:
        return _compared(model, moments, file, read_json(file))
    except KeyError as missing:
        raise ValueError(f"{file}, or its tensors, lack {missing}") from None


def _compared(
    model: EditableModel, moments: SecondMoments, file: Path, reference: Mapping[str, Any]
) -> list[SequenceRow]:
    for name, digest in (("model.safetensors", "model_sha256"), (MOMENTS, "second_moment_sha256")):
        path = file.parent.parent / name
        if (
            digest in reference
            and path.is_file()
            and hashlib.sha256(path.read_bytes()).hexdigest() != reference[digest]
        ):
            raise ValueError(f"{file.name} was made with another {name} than the one in {path.parent}")
    tensors = {
        name: tensor.T if model.family.transposed and name.endswith((".delta", ".cumulative")) else tensor
        for name, tensor in load_file(file.with_suffix(".safetensors")).items()
    }
    method = _sequential_method(file, reference)
    ours: list[Earlier] = []
    theirs: list[Earlier] = []
    rows: list[SequenceRow] = []
    try:
        for step in reference["steps"]:
            facts = tuple(_fact(request) for request in step["requests"])
            edit, trace = method(
                model,
                facts,
                moments=moments,
                contexts=reference["contexts"],
                earlier=ours,  # type: ignore[call-arg]
            )
            ours.append(Earlier(facts, edit))
            model.write([each.edit for each in ours])
            alone = {layer: _named(tensors, step, layer, "keys", "residual") for layer in method.edited_layers}
            agree = _searches_agree(trace, step["search"])
            for layer, delta in edit.items():
                wanted, moved = _named(tensors, step, layer, "delta", "cumulative")
                here = model.weight(layer).detach().double().cpu() - model.base_weight(layer).double().cpu()
                rows.append(
                    SequenceRow(
                        sequence=file.stem,
                        step=step["step"],
                        layer=layer,
                        facts="; ".join(map(str, facts)),
                        reference_norm=float(wanted.double().norm()),
                        norm=delta.norm(),
                        solve_error=_apart(_solved(method, moments, layer, facts, theirs, *alone[layer]), wanted),
                        delta_error=_apart(delta.left.double().cpu() @ delta.right.double().cpu().T, wanted),
                        weight_error=_apart(here, moved),
                        loss_error=_loss_error(trace, step["search"]),
                        searches_agree=agree,
                    )
                )
            kept = {layer: LowRank(residual.float(), keys, keys) for layer, (keys, residual) in alone.items()}
            theirs.append(Earlier(facts, kept))
    finally:
        model.write([])
    return rows


def _sequential_method(file: Path, reference: Mapping[str, Any]) -> HistoryMethod:
    """The sequence's method. Raises ValueError for one that is not known, or for a setting that no method has."""
    name = str(reference.get("method", file.stem)).split("-")[0]
    if name not in METHODS:
        raise ValueError(f"{file.name} is of the method {name!r}; a sequence may be of {', '.join(METHODS)}")
    hparams = reference["hparams"]
    cutoff = hparams.get("prob_cutoff", 0)
    if cutoff > 0 or hparams.get("norm_control"):
        raise ValueError(f"{file.name} sets prob_cutoff above 0 or norm_control, which no method here has")
    kind = method_class(METHODS[name])
    more = {
        "history": hparams.get("sequential", True) and hparams.get("add_prev_edits", True),
        "supersede": False,
        "stop_after": -cutoff,
        "stop_counts_bare": False,
    }
    if "null_threshold" in {f.name for f in fields(kind)}:
        more |= {"null_space": "threshold"}
    if hparams.get("use_nas"):
        more |= {"anchored": True, "anchor_norm": reference["anchor"]["mean_vstar_norm"]}
    method = method_of(kind, hparams, **more)
    assert isinstance(method, HistoryMethod)
    return method


def _fact(request: Mapping[str, Any]) -> Fact:
    true = request.get("target_true", {}).get("str")
    return Fact(request["prompt"], request["subject"], request["target_new"]["str"], true)


def _named(tensors: Mapping[str, Tensor], step: Mapping[str, Any], layer: int, *what: str) -> tuple[Tensor, ...]:
    return tuple(tensors[f"step{step['step']}.layer{layer}.{name}"] for name in what)


def _solved(
    method: HistoryMethod,
    moments: SecondMoments,
    layer: int,
    facts: Sequence[Fact],
    earlier: Sequence[Earlier],
    keys: Tensor,
    residual: Tensor,
) -> Tensor:
    """ΔW (d_out, d_in) by the method's solve alone."""
    right, _ = method.right(moments, layer, keys.double(), method.kept(layer, facts, earlier))
    return residual.double() @ right.T


def _apart(ours: Tensor, theirs: Tensor) -> float:
    theirs = theirs.double()
    return float(torch.linalg.matrix_norm(ours - theirs) / torch.linalg.matrix_norm(theirs))


def _loss_error(trace: Trace, searches: Sequence[Mapping[str, Any]]) -> float:
    """The largest difference of a term in a step of a search; infinite where their numbers differ."""
    error = 0.0
    for ours, theirs in zip(trace.values, searches, strict=True):
        for term in ("loss", "nll", "kl", "decay"):
            mine = getattr(ours, term)
            if len(mine) != len(theirs[term]):
                return float("inf")
            error = max([error, *(abs(a - b) for a, b in zip(mine, theirs[term], strict=True))])
    return error


def _searches_agree(trace: Trace, searches: Sequence[Mapping[str, Any]]) -> bool:
    return all(_agrees(ours, theirs) for ours, theirs in zip(trace.values, searches, strict=True))


def _agrees(ours: ValueTrace, theirs: Mapping[str, Any]) -> bool:
    skipped = ours.anchored is not None and ours.anchored.skipped
    return (
        len(ours.loss) == theirs["forward_passes"]
        and list(ours.hits) == theirs.get("hits", list(ours.hits))
        and skipped == theirs.get("skipped", False)
    )
