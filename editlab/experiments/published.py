"""Published figures of a model, each with its source, recomputed: `data/published/NAME.json`, part by part.

weights    a norm or a sum of an edited layer's W
hidden     the norm of a layer's output at a subject's last token, before any edit
sequences  edits one after another from the unedited model: losses, norms, drift by layer, counts of a task
sizes      facts, each edited alone, whose |Δ| = ‖ΔW‖_F ÷ numel lies on one side of a level
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from editlab.core.facts import CaseId, Fact
from editlab.core.paths import resource
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.core.records import Trace
from editlab.editing.editor import Editor
from editlab.editing.moments import SecondMoments
from editlab.measures.downstream import ByGeneration
from editlab.measures.tasks import Task
from editlab.methods._rows import row_of
from editlab.model.deltas import Edit
from editlab.model.fast.blocks import embed, run
from editlab.model.fast.prompts import Budget
from editlab.model.model import EditableModel

AGREES, DIFFERS, REPORTED, NOT_CHECKED = "agrees", "differs", "reported", "not checked"


@dataclass(frozen=True)
class FigureCheck:
    """One figure: as published, as measured here, and the verdict."""

    part: str
    figure: str
    published: Any  # a number, several, or a range in words
    verdict: str
    measured: Any = None
    error: float | None = None  # relative for numbers, absolute for losses, a share of the examples for counts
    tolerance: float | None = None
    source: str = ""
    note: str = ""  # what is missing, or how the figure was judged


@dataclass(frozen=True)
class Means:
    """The data needed to recompute the figures, besides the model."""

    facts: Mapping[CaseId, Fact] = field(default_factory=dict)  # CounterFact by case id
    moments: str | SecondMoments = "auto"
    task: Task | None = None  # SST-2
    task_is_the_sources: bool = False  # whether the task has the publication's prompt and examples
    seed: int = 0


def reference_of(name: str) -> dict[str, Any]:
    """The published figures of a preset. Raises ValueError where there are none."""
    folder = resource("published")
    file = folder / f"{name}.json"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.json")))
        raise ValueError(f"no published figures of {name}; available: {known}")
    return json.loads(file.read_text(encoding="utf-8"))


def parts_of(reference: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the parts: weights, hidden, the methods of sequences, and sizes."""
    names = [name for name in ("weights", "hidden") if reference.get(name)]
    names += dict.fromkeys(sequence["part"] for sequence in reference.get("sequences", ()))
    return (*names, "sizes") if reference.get("sizes") else tuple(names)


def check(
    model: EditableModel,
    reference: Mapping[str, Any],
    means: Means,
    only: Sequence[str] | None = None,
    report: OnProgress = quiet,
) -> Iterator[FigureCheck]:
    """Every figure of these parts, one by one. The model is unedited before and after.

    Raises ValueError for an unknown part.
    """
    parts = parts_of(reference)
    for name in only or ():
        if name not in parts:
            raise ValueError(f"no part {name!r}; available: {', '.join(parts)}")
    wanted = set(only or parts)
    own = Editor(model, moments=means.moments, seed=means.seed)
    with model.unedited():
        if "weights" in wanted:
            yield from (_weight(model, figure) for figure in reference["weights"])
        if "hidden" in wanted:
            yield from (_hidden(model, figure) for figure in reference["hidden"])
        for sequence in reference.get("sequences", ()):
            if sequence["part"] in wanted:
                yield from _Sequence(model, own, sequence, means, report).rows()
        if "sizes" in wanted:
            for sizes in reference["sizes"]:
                yield from _sizes(model, own, sizes, means, report)


def exit_code(rows: Sequence[FigureCheck]) -> int:
    """0: every figure was checked and agrees; 1: one differs; 2: none differs, but one was not checked.

    Figures that are only reported do not count.
    """
    verdicts = {row.verdict for row in rows}
    return 1 if DIFFERS in verdicts else 2 if NOT_CHECKED in verdicts or not rows else 0


def _judged(
    part: str, figure: str, published: Any, measured: Any, error: float, tolerance: float, source: str
) -> FigureCheck:
    verdict = AGREES if error <= tolerance else DIFFERS  # a NaN differs
    return FigureCheck(part, figure, published, verdict, measured, error, tolerance, source)


def _number(part: str, figure: str, published: float, measured: float, tolerance: float, source: str) -> FigureCheck:
    return _judged(part, figure, published, measured, abs(measured - published) / abs(published), tolerance, source)


# --- the unedited model ---


def _weight(model: EditableModel, figure: Mapping[str, Any]) -> FigureCheck:
    weight = model.weight(figure["layer"]).double()
    numbers: dict[str, Callable[[], torch.Tensor]] = {
        "norm": lambda: torch.linalg.matrix_norm(weight),
        "sum": weight.sum,
    }
    measured = float(numbers[figure["number"]]())
    named = {"norm": "‖W‖_F", "sum": "sum of W"}[figure["number"]]
    what = f"{named} of layer {figure['layer']}"
    return _number("weights", what, figure["value"], measured, figure["tolerance"], figure["source"])


@torch.no_grad()
def _hidden(model: EditableModel, figure: Mapping[str, Any]) -> FigureCheck:
    fact, layer, where = Fact.from_json(figure["fact"]), figure["layer"], figure["where"]
    row = row_of(model, fact.text, fact.subject_end)
    batch = model.batch([row.ids])
    if where == "mlp":
        output = model.projection(layer)(model.keys_of(batch, [layer])[layer])
    else:
        output = run(model, range(layer + 1), embed(model, batch.input_ids))
    what = f"norm of the {where} output of layer {layer} at {fact.subject!r} in {fact.text!r}"
    measured = float(output[0, row.lookup].norm())
    return _number("hidden", what, figure["value"], measured, figure["tolerance"], figure["source"])


# --- edits ---


@dataclass(frozen=True)
class _Done:
    """One edit of a sequence, in force."""

    model: EditableModel
    trace: Trace

    @property
    def layer(self) -> int:
        (layer,) = self.trace.layers
        return layer


NUMBERS: dict[str, tuple[str, Callable[[_Done], float]]] = {
    "init_norm": ("‖init‖", lambda done: done.trace.values[0].init_norm),
    "value_delta_norm": ("‖δ‖", lambda done: done.trace.values[0].delta_norm),
    "value_norm": ("‖init + δ‖", lambda done: done.trace.values[0].value_norm),
    "divisor": ("divisor", lambda done: done.trace.layers[done.layer].divisor or 0.0),
    "key_norm": ("‖k̄‖", lambda done: done.trace.layers[done.layer].key_norm),
    "residual_norm": ("‖z - cur‖", lambda done: done.trace.layers[done.layer].residual_norm),
    "delta_norm": ("‖ΔW‖_F", lambda done: done.trace.layers[done.layer].delta_norm),
    "weight_norm_after": (
        "‖W‖_F after it",
        lambda done: float(torch.linalg.matrix_norm(done.model.weight(done.layer))),
    ),
}


class _Sequence:
    """Edits one after another on the unedited model, by one method."""

    def __init__(
        self, model: EditableModel, own: Editor, sequence: Mapping[str, Any], means: Means, report: OnProgress
    ) -> None:
        self._model, self._means, self._report = model, means, report
        self._sequence = sequence
        self._part, self._title, self._source = sequence["part"], sequence["title"], sequence["source"]
        self._method = own.method(sequence["method"], sequence.get("hyperparameters"))
        self._contexts = sequence.get("contexts")
        self._editor = _with_identity(model, self._method.edited_layers) if _is_identity(sequence) else own
        self._rule = None if means.task is None else ByGeneration(model, means.task, Budget(0))

    def rows(self) -> Iterator[FigureCheck]:
        model, edits = self._model, self._sequence["edits"]
        in_force: list[Edit] = []
        missing = ""
        model.write([])
        try:
            if "counts_before" in self._sequence:
                yield self._counts(f"{self._title}: SST-2 before any edit", self._sequence["counts_before"])
            for number, published in enumerate(edits):
                where = f"{self._title}: edit {number + 1} of {len(edits)}"
                fact = _fact_of(published, self._means.facts)
                if fact is None:
                    missing = missing or f"CounterFact's case {published['case_id']}"
                if fact is None or missing:
                    yield FigureCheck(
                        self._part, where, "", NOT_CHECKED, source=self._source, note=f"{missing} is needed (--facts)"
                    )
                    continue
                self._report(Progress(self._title, number + 1, len(edits)))
                edit, trace, _ = self._editor.compute([fact], self._method, contexts=self._contexts)
                in_force.append(edit)
                model.write(in_force)
                yield from self._of_one(f"{where}, {fact}", published, _Done(model, trace))
        finally:
            model.write([])

    def _of_one(self, where: str, published: Mapping[str, Any], done: _Done) -> Iterator[FigureCheck]:
        tolerance = self._sequence["tolerance"]
        if "losses" in published:
            yield self._losses(where, published["losses"], done.trace, tolerance["losses"])
        for name, value in published.get("numbers", {}).items():
            title, read = NUMBERS[name]
            yield _number(self._part, f"{where}: {title}", value, read(done), tolerance["numbers"], self._source)
        for layer, value in published.get("drift", {}).items():
            drift, _, _ = done.model.drift(int(layer))
            what = f"{where}: ‖W - W₀‖_F of layer {layer}"
            yield _number(self._part, what, value, drift, tolerance["numbers"], self._source)
        if "counts" in published:
            yield self._counts(f"{where}: SST-2", published["counts"])

    def _losses(self, where: str, published: list[float], trace: Trace, tolerance: float) -> FigureCheck:
        measured = list(trace.values[0].loss)
        same = len(measured) == len(published)
        error = max(abs(a - b) for a, b in zip(measured, published, strict=True)) if same else float("inf")
        what = f"{where}: {len(published)} losses"
        return _judged(self._part, what, published, measured, error, tolerance, self._source)

    def _counts(self, figure: str, published: list[int]) -> FigureCheck:
        """Right, wrong and invalid answers; judged if prompt and examples are the source's."""
        task = self._means.task
        if task is None or self._rule is None:
            note = "not measured: SST-2's examples are needed (--glue or --sst2)"
            return FigureCheck(self._part, figure, published, REPORTED, source=self._source, note=note)
        answers = self._rule.answers(self._report)
        right = sum(given == example.label for given, example in zip(answers, task.examples, strict=True))
        invalid = answers.count(None)
        measured = [right, len(answers) - right - invalid, invalid]
        if not self._means.task_is_the_sources:
            note = f"not judged: our prompt, {len(answers)} examples"
            return FigureCheck(self._part, figure, published, REPORTED, measured, source=self._source, note=note)
        shares = zip(measured, published, strict=True)
        error = max(abs(ours / len(answers) - theirs / sum(published)) for ours, theirs in shares)
        tolerance = self._sequence["tolerance"]["counts"]
        return _judged(self._part, figure, published, measured, error, tolerance, self._source)


def _fact_of(published: Mapping[str, Any], facts: Mapping[CaseId, Fact]) -> Fact | None:
    return Fact.from_json(published["fact"]) if "fact" in published else facts.get(published["case_id"])


def _is_identity(sequence: Mapping[str, Any]) -> bool:
    return sequence.get("second_moments") == "identity"


def _with_identity(model: EditableModel, layers: Sequence[int]) -> Editor:
    """An editor that takes the identity for C."""
    identity = {layer: torch.eye(model.weight(layer).shape[1], device=model.device_of(layer)) for layer in layers}
    return Editor(model, moments=SecondMoments(identity, {"name": "identity"}))


def _sizes(
    model: EditableModel, editor: Editor, sizes: Mapping[str, Any], means: Means, report: OnProgress
) -> Iterator[FigureCheck]:
    """|Δ| of each fact edited alone, against the level between ordinary and disabling edits."""
    method = editor.method(sizes["method"], sizes.get("hyperparameters"))
    above, below = sizes.get("above", 0.0), sizes.get("below", float("inf"))
    bound = f"judged: above {above:g}" if above else f"judged: below {below:g}"
    for number, case_id in enumerate(sizes["case_ids"]):
        what = f"|Δ| of {method.title}, case {case_id}"
        fact = means.facts.get(case_id)
        if fact is None:
            note = f"CounterFact's case {case_id} is needed (--facts)"
            yield FigureCheck("sizes", what, sizes["published"], NOT_CHECKED, source=sizes["source"], note=note)
            continue
        report(Progress(f"sizes by {method.title}", number + 1, len(sizes["case_ids"])))
        edit, _, _ = editor.compute([fact], method)
        size = max(delta.norm() / model.weight(layer).numel() for layer, delta in edit.items())
        verdict = AGREES if above < size < below else DIFFERS
        yield FigureCheck(
            "sizes", f"{what}, {fact}", sizes["published"], verdict, size, source=sizes["source"], note=bound
        )
