"""`verify`: recompute the results of a reference implementation, record by record, and compare.

A folder holds a small model, `second_moment.safetensors` (layer -> C), and per method `{name}.json` (contexts,
hyperparameters, requests, printed losses) with `{name}.safetensors` (ΔW as "{record}.{layer}", in the model's order).
Its `sequential/` holds edits of one after another: see `editlab.experiments.sequential`. Its `trace/` holds causal
traces: see `editlab.experiments.traced`.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from editlab.core.facts import Fact
from editlab.core.info import VERIFY
from editlab.core.progress import OnProgress as ProgressReport
from editlab.core.progress import Progress, quiet
from editlab.core.records import Trace
from editlab.editing.moments import SecondMoments
from editlab.experiments.sequential import MOMENTS, SEQUENTIAL, SequenceRow, compare, disagreements, method_of
from editlab.experiments.traced import TRACE, TraceRow, compare_traces, trace_disagreements
from editlab.methods import Method, method_class, offered
from editlab.model.fast.precision import in_full_float32
from editlab.model.loading import load
from editlab.model.model import EditableModel

MEDIAN_BELOW = 1e-4
NONE_ABOVE = 1e-3
LOSSES_WITHIN = 1e-3
_LINE = re.compile(r"loss (\S+) = (\S+) \+ (\S+) \+ (\S+) avg prob")


@dataclass(frozen=True)
class Comparison:
    """One record and layer against the reference."""

    method: str
    record: int
    layer: int
    facts: str
    reference_norm: float  # ‖ΔW‖_F
    norm: float
    relative_error: float  # ‖ours - theirs‖_F ÷ ‖theirs‖_F
    loss_error: float  # largest difference over all printed loss lines of the record


@dataclass(frozen=True)
class Verification:
    """All rows, and the verdict: per method the median error, the worst, and the losses."""

    rows: tuple[Comparison, ...]
    sequences: tuple[SequenceRow, ...] = ()
    traces: tuple[TraceRow, ...] = ()

    def failures(self) -> list[str]:
        """The disagreements, one sentence each; empty if all agree."""
        found = [*disagreements(self.sequences), *trace_disagreements(self.traces)]
        for name in dict.fromkeys(row.method for row in self.rows):
            rows = [row for row in self.rows if row.method == name]
            errors = [row.relative_error for row in rows]
            losses = max(row.loss_error for row in rows)
            # `not <` so that a NaN fails.
            if not statistics.median(errors) < MEDIAN_BELOW:
                found.append(f"{name}: the median error {statistics.median(errors):.1e} is not below {MEDIAN_BELOW:g}")
            if not max(errors) <= NONE_ABOVE or any(e != e for e in errors):
                found.append(f"{name}: an error {max(errors):.1e} is above {NONE_ABOVE:g}")
            if not losses <= LOSSES_WITHIN:
                found.append(f"{name}: a loss is off by {losses:.4f}, more than {LOSSES_WITHIN:g}")
        return found

    @property
    def ok(self) -> bool:
        return bool(self.rows or self.sequences or self.traces) and not self.failures()


def verify(folder: str | Path, report: ProgressReport = quiet, device: str = "auto") -> Verification:
    """Recompute every record of a reference folder, on a device as `load` takes it, with exact float32 products.

    Raises ValueError if the folder is no reference folder, or if there is no such device.
    """
    folder = Path(folder).expanduser()
    checkable = offered(VERIFY)
    names = [name for name in checkable if (folder / f"{name}.json").is_file()]
    sequences = sorted((folder / SEQUENTIAL).glob("*.json"))
    traced = folder / TRACE
    edited = bool(names or sequences)
    if not (edited or traced.is_file()) or (edited and not (folder / MOMENTS).is_file()):
        raise ValueError(
            f"{folder} is not a reference folder: it needs {TRACE}, or {MOMENTS} and one of "
            + ", ".join([*(f"{name}.json" for name in checkable), f"{SEQUENTIAL}/*.json"])
        )
    model = load(str(folder.resolve()), device=device)
    matrices = {int(layer): c for layer, c in load_file(folder / MOMENTS).items()} if edited else {}
    moments = SecondMoments(matrices, {"name": folder.name})
    rows: list[Comparison] = []
    for name in names:
        reference = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        deltas = load_file(folder / f"{name}.safetensors")
        method = _method(name, reference["hparams"])
        for number, record in enumerate(reference["records"]):
            report(Progress(f"verifying {method.title}", number + 1, len(reference["records"])))
            with in_full_float32():
                rows += _rows(model, moments, method, number, record, reference["contexts"], deltas)
    compared: list[SequenceRow] = []
    for number, file in enumerate(sequences, 1):
        report(Progress(f"verifying the sequence {file.stem}", number, len(sequences)))
        with in_full_float32():
            compared += compare(model, moments, file)
    traces: list[TraceRow] = []
    if traced.is_file():
        with in_full_float32():
            traces = compare_traces(model, traced, report)
    return Verification(tuple(rows), tuple(compared), tuple(traces))


def _method(name: str, hparams: Mapping[str, Any]) -> Method:
    """A method from the reference code's own names of its hyperparameters."""
    return method_of(method_class(name), hparams)


def _rows(
    model: EditableModel,
    moments: SecondMoments,
    method: Method,
    number: int,
    record: Mapping[str, Any],
    contexts: list[str],
    deltas: Mapping[str, Tensor],
) -> list[Comparison]:
    facts = [
        Fact(r["prompt"], r["subject"], r["target_new"]["str"], r["target_true"]["str"]) for r in record["requests"]
    ]
    edit, trace = method(model, facts, moments=moments, contexts=contexts, report=quiet)
    loss_error = _loss_error(trace, record["losses"])
    rows = []
    for layer, delta in edit.items():
        theirs = deltas[f"{number}.{layer}"].double()
        if model.family.transposed:
            theirs = theirs.T
        ours = delta.left.double().cpu() @ delta.right.double().cpu().T
        error = float(torch.linalg.matrix_norm(ours - theirs) / torch.linalg.matrix_norm(theirs))
        norm = float(torch.linalg.matrix_norm(theirs))
        text = "; ".join(map(str, facts))
        rows.append(Comparison(method.name, number, layer, text, norm, delta.norm(), error, loss_error))
    return rows


def _loss_error(trace: Trace, lines: list[str]) -> float:
    """Largest difference to the printed loss, NLL, KL and decay; infinite if the number of steps differs."""
    printed = [tuple(map(float, match.groups())) for line in lines if (match := _LINE.match(line))]
    ours = [step for value in trace.values for step in zip(value.loss, value.nll, value.kl, value.decay, strict=True)]
    if len(printed) != len(ours):
        return float("inf")
    return max(
        abs(a - b) for mine, theirs in zip(ours, printed, strict=True) for a, b in zip(mine, theirs, strict=True)
    )
