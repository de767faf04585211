"""Replay: a session's log applied again from its file, and the weights compared with those it was recorded with.

Stored deltas give the same weights to the last bit on the same device, torch build and number of threads; elsewhere
norms are compared. Recomputing makes every edit again, on top of the stored edits that were in force when it was made,
so that errors do not add up, and compares ΔW and the losses of the search.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from editlab.core.progress import OnProgress, Progress, quiet
from editlab.core.record import Record
from editlab.core.records import Step, Trace
from editlab.editing.editor import Editor
from editlab.measures import Measures
from editlab.model.deltas import Edit, LowRank
from editlab.model.model import EditableModel
from editlab.session.log import Entry, Made, earlier_of, edits_of, ids_of, layers_of
from editlab.session.recording import FORMAT, TOLERANCE, LayerWeights, Recording, packed_deltas
from editlab.session.session import Session

CONDITIONS = ("device", "dtype", "torch", "threads")  # where these are equal, the last bits are equal


@dataclass(frozen=True)
class ReplayedStep(Record):
    """One step, as recorded and as replayed. Errors are the largest over the edited layers; None: not recomputed."""

    step: int
    edit: str  # id; "" for the unedited model
    fact: str  # subject and new object
    method: str | None
    state: str  # "in force", "off" or "undone"
    equal: bool  # the weights of all edited layers are the same to the last bit
    norm_error: float  # of ‖W‖ and ‖W - W₀‖, relative
    delta_error: float | None = None  # ‖ΔW again - ΔW‖ ÷ ‖ΔW‖
    loss_error: float | None = None  # over every step of the search; infinite where their numbers differ
    ok: bool = True


@dataclass(frozen=True)
class Replayed(Record):
    """All rows, and how they were compared."""

    rows: tuple[ReplayedStep, ...]
    differs: tuple[str, ...]  # differences between this machine and the recording's, a sentence each
    exact: bool  # whether the weights must be equal to the last bit, because no condition for that differs
    tolerance: float

    @property
    def ok(self) -> bool:
        return all(row.ok for row in self.rows)


# --- making the file ---


def record(session: Session, report: OnProgress = quiet) -> bytes:
    """The session as a file that `replay` applies again, undone and switched-off edits included."""
    state = session.state()
    # An edit may be switched off meanwhile; the weights in the file must agree with its state.
    log = [replace(entry, enabled=step.enabled) for entry, step in zip(session.log, state.steps[1:], strict=True)]
    with session.ending_in_force():
        weights = weights_after(session.model, log, report)
    recording = Recording(
        format=FORMAT,
        state=state,
        said_new=tuple(entry.made.said_new for entry in log),
        preferred_new=tuple(entry.made.preferred_new for entry in log),
        weights=weights,
    )
    tensors = {
        name: tensor
        for number, entry in enumerate(log, 1)
        for layer, delta in entry.edit.items()
        for name, tensor in delta.tensors(f"{number}.{layer}").items()
    }
    return recording.pack(save(tensors))


def weights_after(
    model: EditableModel, log: Sequence[Entry], report: OnProgress = quiet
) -> tuple[Mapping[int, LayerWeights], ...]:
    """The weights of every layer that the log edits, after each of its steps. The last step is in force afterwards."""
    layers = layers_of([entry.edit for entry in log])
    model.hold(layers)
    found = []
    for step in range(len(log) + 1):
        report(Progress("weights of every step", step, len(log)))
        model.write(edits_of(log[:step]))
        found.append({layer: _weights(model, layer) for layer in layers})
    return tuple(found)


def _weights(model: EditableModel, layer: int) -> LayerWeights:
    weight = model.weight(layer).detach().float().contiguous().cpu()
    digest = hashlib.sha256(weight.numpy().data).hexdigest()
    return LayerWeights(digest, model.norm(layer), model.drift(layer)[0])


# --- reading it ---


def read(source: Path | bytes) -> tuple[Recording, tuple[Entry, ...]]:
    """The recording and the log in a replay file. Raises ValueError if the file is not a complete replay file."""
    recording = Recording.read(source)
    try:
        tensors = load(packed_deltas(source))
        edits = [_edit(tensors, step) for step in recording.state.steps[1:]]
        made = zip(recording.state.steps[1:], recording.said_new, recording.preferred_new, edits, strict=True)
        log = tuple(Entry(edit, _made(step, said, before), step.enabled) for step, said, before, edit in made)
    except (SafetensorError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the deltas in the file are not those of its edits: {error}") from error
    if {name for step, edit in enumerate(edits, 1) for name in _names(step, edit)} != set(tensors):
        raise ValueError("the deltas in the file are not those of its edits: there are more of them")
    return recording, log


def _edit(tensors: Mapping[str, torch.Tensor], step: Step) -> Edit:
    edit = {layer: LowRank.of(tensors, f"{step.index}.{layer}") for layer in step.size}
    if not all(delta.is_finite() for delta in edit.values()):
        raise ValueError(f"the delta of edit {step.index} in the file is not finite")
    return edit


def _names(step: int, edit: Edit) -> list[str]:
    return [name for layer, delta in edit.items() for name in delta.tensors(f"{step}.{layer}")]


def _made(step: Step, said_new: tuple[bool, ...], preferred_new: tuple[bool | None, ...]) -> Made:
    if step.method is None or step.trace is None or {len(said_new), len(preferred_new)} != {len(step.facts)}:
        raise ValueError(f"the file does not say how edit {step.index} was made")
    return Made(
        step.id, step.facts, step.method, step.hyperparameters, step.trace, step.size, said_new, preferred_new,
        step.provenance, step.seconds, step.risk, step.guarded,
    )  # fmt: skip


def restored(editor: Editor, recording: Recording, log: Sequence[Entry], measures: Measures | None = None) -> Session:
    """The session of a file over this editor's model: log, position, watched prompts and plan; nothing is measured.

    Raises ValueError if the file is of another model.
    """
    check_model(editor, recording, log)
    session = Session(editor, measures)
    session.restore(log)
    session.goto(recording.state.position)
    session.watch(recording.state.watched)
    known = session.measures.by_name
    session.set_plan({name: every for name, every in recording.state.plan.items() if name in known})
    return session


def check_model(editor: Editor, recording: Recording, log: Sequence[Entry]) -> None:
    """Raises ValueError unless the file's edits are of this model."""
    there, here = recording.state.steps[0].provenance, editor.model
    if not here.is_named(str(there.get("model_fingerprint"))):
        raise ValueError(
            f"the file is of {there.get('model')} (fingerprint {there.get('model_fingerprint')}), "
            f"the model at hand is {here.name} ({here.fingerprint()})"
        )
    for number, entry in enumerate(log, 1):
        for layer, delta in entry.edit.items():
            if delta.shape != tuple(here.weight(layer).shape):
                raise ValueError(f"edit {number} in the file is of another shape than layer {layer}: {delta.shape}")


# --- comparing ---


def replay(
    editor: Editor,
    recording: Recording,
    log: Sequence[Entry],
    *,
    recompute: bool = False,
    tolerance: float = TOLERANCE,
    report: OnProgress = quiet,
) -> Replayed:
    """Apply the file's log again and compare each step with the recorded one; `recompute` makes every edit again too.

    Raises ValueError if the file is of another model. The model is unedited afterwards.
    """
    session = restored(editor, recording, log)
    differs = _conditions(recording.state.steps[0].provenance, editor.provenance())
    exact = not differs
    try:
        weights = weights_after(session.model, session.log, report)
        editors = _editors(editor, session.log) if recompute else []
        anew = [_anew(each, session.log, number, report) for number, each in enumerate(editors)]
    finally:
        session.model.write([])
    if recompute:
        differs += _other_moments(editors, session.log)
    rows = []
    for step, there, here in zip(recording.state.steps, recording.weights, weights, strict=True):
        again = anew[step.index - 1] if anew and step.index else None
        equal = {n: w.digest for n, w in there.items()} == {n: w.digest for n, w in here.items()}
        error = _norm_error(there, here)
        ok = (equal or (not exact and error <= tolerance)) and (again is None or max(again) <= tolerance)
        undone = step.index > recording.state.position
        state = "undone" if undone else "in force" if step.enabled else "off"
        fact = "; ".join(f"{each.subject} → {each.target_new}" for each in step.facts) or "unedited"
        delta_error, loss_error = again or (None, None)
        rows.append(
            ReplayedStep(step.index, step.id, fact, step.method, state, equal, error, delta_error, loss_error, ok)
        )
    return Replayed(tuple(rows), tuple(differs), exact, tolerance)


def _editors(editor: Editor, log: Sequence[Entry]) -> list[Editor]:
    """For each edit the editor with the second moments of its provenance, as far as they are there."""
    found: dict[str, Editor] = {}
    editors = []
    for entry in log:
        recorded = entry.made.provenance.get("second_moments", {})
        key = repr((sorted(entry.edit), recorded))
        if key not in found:
            found[key] = editor.resuming(sorted(entry.edit), recorded)
        editors.append(found[key])
    return editors


def _anew(editor: Editor, log: Sequence[Entry], number: int, report: OnProgress) -> tuple[float, float]:
    """The errors of ΔW and of the losses when an edit is made again on top of the edits that were then in force."""
    entry, provenance = log[number], log[number].made.provenance
    in_force = _upon(log[:number], provenance)
    editor.model.write([each.edit for each in in_force])
    method = editor.method(entry.made.method, entry.made.hyperparameters)
    report(Progress("making the edits again", number + 1, len(log)))
    edit, trace, _ = editor.compute(
        entry.facts, method, contexts=provenance.get("contexts"), earlier=earlier_of(in_force)
    )
    return max(_delta_error(edit[n], delta) for n, delta in entry.edit.items()), _loss_error(trace, entry.made.trace)


def _upon(earlier: Sequence[Entry], provenance: Mapping[str, Any]) -> list[Entry]:
    """Of the earlier edits, those that were in force when an edit was made, as they were then: switched on."""
    if "without" in provenance:
        found = [entry for entry in earlier if entry.id not in provenance["without"]]
    else:
        upon = provenance.get("upon", ids_of(earlier))  # files of earlier versions name all of them
        found = [entry for entry in earlier if entry.id in upon]
    return [entry if entry.enabled else replace(entry, enabled=True) for entry in found]


def _delta_error(again: LowRank, delta: LowRank) -> float:
    """‖again - ΔW‖ ÷ ‖ΔW‖, from the factors."""
    apart = LowRank(torch.cat([again.left, -delta.left], 1), torch.cat([again.right, delta.right], 1))
    return apart.norm() / (delta.norm() or 1.0)


def _loss_error(again: Trace, trace: Trace) -> float:
    searches = list(zip(again.values, trace.values, strict=True))
    if any(len(a.loss) != len(b.loss) for a, b in searches):
        return math.inf
    return max((abs(x - y) for a, b in searches for x, y in zip(a.loss, b.loss, strict=True)), default=0.0)


def _norm_error(there: Mapping[int, LayerWeights], here: Mapping[int, LayerWeights]) -> float:
    """The largest relative error of a norm; infinite where layers are missing."""
    if set(there) != set(here):
        return math.inf
    pairs = [(getattr(there[n], what), getattr(here[n], what)) for n in there for what in ("norm", "drift")]
    return max((abs(a - b) / (a or 1.0) for a, b in pairs), default=0.0)


def differences(editor: Editor, recording: Recording, log: Sequence[Entry]) -> list[str]:
    """The reasons why an edit of the file that is made again here may differ from the recorded one, a sentence each."""
    conditions = _conditions(recording.state.steps[0].provenance, editor.provenance())
    return [*conditions, *_other_moments([editor] * len(log), log)]


def _conditions(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """The conditions for equal last bits that differ between there and here, a sentence each."""
    then, now = ({**each, "torch": each.get("versions", {}).get("torch")} for each in (there, here))
    return [f"{n} was {then.get(n)}, here it is {now.get(n)}" for n in CONDITIONS if then.get(n) != now.get(n)]


def _other_moments(editors: Sequence[Editor], log: Sequence[Entry]) -> list[str]:
    """A sentence for each source of second moments with which edits were made, if it differs from that here."""
    found: dict[str, None] = {}
    for editor, entry in zip(editors, log, strict=True):
        there = entry.made.provenance.get("second_moments", {})
        if there == {} and "second_moments" in entry.made.provenance:  # a method that needs none
            continue
        here = editor.moments(list(entry.edit)).provenance_of(entry.edit)
        if any(there.get(what) != here.get(what) for what in ("name", "digest", "keys")):
            was, now = (f"{told.get('name')}, {told.get('keys', '?')} keys" for told in (there, here))
            found[f"second moments were of {was}; here they are of {now}"] = None
    return list(found)
