"""The risk of editing facts: from their keys, after one forward pass up to the edited layer, without a search.

Each method's `foresee` gives its divisor and a bound on the size of its change.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from editlab.analysis.risk import Reference, level_by_ratio, level_by_tokens, place, references, size
from editlab.core.facts import Fact
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.core.records import LEVELS, Risk
from editlab.editing.editor import Editor
from editlab.measures.preservation import output_power
from editlab.methods import Method, completed, hyperparameters
from editlab.methods._base import check_layers
from editlab.methods._keys import subject_passes
from editlab.methods._risk import Foreseen, Read, Solve, cosine
from editlab.methods._rows import row_of
from editlab.methods._stranger import foreseen
from editlab.model.fast.precision import in_full_float32
from editlab.model.model import EditableModel

FACTS_AT_ONCE = 32


def assess(editor: Editor, facts: Sequence[Fact], method: Method, report: OnProgress = quiet) -> list[Risk]:
    """The risk of every fact, each edited alone on the weights in force; several facts share a pass.

    Raises ValueError for a fact or layer that the model cannot take.
    """
    check_layers(method.edited_layers, editor.model)
    for fact in facts:
        editor.model.check(fact)
    risks: list[Risk] = []
    for start in range(0, len(facts), FACTS_AT_ONCE):
        report(Progress("assessing the risk", start, len(facts)))
        some = facts[start : start + FACTS_AT_ONCE]
        risks += _judged(editor, some, _read(editor, some, method), method, report)
    return risks


def assess_methods(
    editor: Editor, fact: Fact, methods: Sequence[Method], report: OnProgress = quiet
) -> dict[str, Risk]:
    """One fact's risk by each method's name; methods with the same layer and contexts share one reading.

    Raises ValueError for a fact or layer that the model cannot take.
    """
    editor.model.check(fact)
    known: dict[tuple[int, tuple[str, ...]], list[Read]] = {}
    risks: dict[str, Risk] = {}
    for done, method in enumerate(methods):
        report(Progress("assessing the risk", done, len(methods)))
        check_layers(method.edited_layers, editor.model)
        where = method.edited_layers[0], editor.contexts(method)
        if where not in known:
            known[where] = _read(editor, [fact], method)
        (risks[method.name],) = _judged(editor, [fact], known[where], method, report)
    return risks


def riskiest(risks: Sequence[Risk]) -> Risk:
    """The risk of the highest level; among equals, the one with the largest predicted change."""
    return max(risks, key=lambda risk: (LEVELS.index(risk.level), risk.relative_size or 0.0))


def calibrate(
    editor: Editor, facts: Sequence[Fact], method: Method, name: str, report: OnProgress = quiet
) -> Reference:
    """The reference for this model and method: the predicted relative sizes of these facts, whose list is `name`.

    Raises ValueError for a method whose size is not predicted, or for too few facts.
    """
    sizes = [risk.relative_size for risk in assess(editor, facts, method, report)]
    known = [relative for relative in sizes if relative is not None]
    if len(known) < len(sizes):
        raise ValueError(f"the size of an edit by {method.title} is not predicted, so there is nothing to calibrate")
    model = editor.model
    return Reference.of(
        known,
        model=model.fingerprint(),
        name=model.name,
        method=method.name,
        hyperparameters=hyperparameters(method),
        facts=name,
    )


def reference_for(model: EditableModel, method: Method) -> Reference | None:
    """The reference that comes with editlab for this model, method and hyperparameters; None if there is none."""
    wanted = (model.fingerprint(), method.name, hyperparameters(method))
    return next(
        (r for r in references() if (r.model, r.method, completed(r.method, r.hyperparameters)) == wanted), None
    )


def subject_place(model: EditableModel, fact: Fact) -> tuple[int, int]:
    """The number of the bare prompt's tokens that hold the subject, and the index of the last of them."""
    begin = fact.subject_end - len(fact.subject)
    held = sum(start < fact.subject_end and end > begin for start, end in model.tokens(fact.text).ends)
    return held, row_of(model, fact.text, fact.subject_end).lookup


@torch.no_grad()
def _read(editor: Editor, facts: Sequence[Fact], method: Method) -> list[Read]:
    model, layer = editor.model, method.edited_layers[0]
    with in_full_float32():
        found = [each.read(layer, layer) for each in subject_passes(model, facts, editor.contexts(method), None)]
        projection = model.projection(layer)
        return [
            Read(keys, projection(keys.to(model.dtype)).float(), block)
            for all_keys, blocks in found
            for keys, block in zip(all_keys, blocks, strict=True)
        ]


@torch.no_grad()
def _judged(
    editor: Editor, facts: Sequence[Fact], reads: Sequence[Read], method: Method, report: OnProgress
) -> list[Risk]:
    layer, reference = method.edited_layers[0], reference_for(editor.model, method)

    def solving(report: OnProgress) -> Solve:
        def solve(key: Tensor) -> Tensor:  # called only by methods that divide: the others need no second moments here
            return editor.moments([layer], report).solve(layer, key[:, None], method.ridge)[:, 0]

        return solve

    with in_full_float32():
        return [
            _risk(editor, method, fact, read, foreseen(method, read, solving, report), reference)
            for fact, read in zip(facts, reads, strict=True)
        ]


def _error(editor: Editor, layer: int, bound: Foreseen) -> float | None:
    """The preservation error of ΔW = left uᵀ at most: ‖left‖² uᵀCu ÷ tr(W₀ C W₀ᵀ); None where it is not foreseen."""
    if bound.norm is None or bound.direction is None or (c := editor.moment_at_hand(layer)) is None:
        return None
    u = bound.direction.to(c)
    return bound.norm**2 * float(u @ c @ u) / output_power(editor.model, layer, c)


def _risk(
    editor: Editor, method: Method, fact: Fact, read: Read, foreseen: Foreseen | None, reference: Reference | None
) -> Risk:
    model, layer = editor.model, method.edited_layers[0]
    weight_norm = model.base_norm(layer)
    tokens, position = subject_place(model, fact)
    token_level = level_by_tokens(tokens, position)
    level = token_level if foreseen is None else level_by_ratio(foreseen.ratio)
    bound = foreseen or Foreseen(read.keys.mean(0), f"the size of an edit by {method.title} is not known beforehand")
    relative = None if bound.norm is None else bound.norm / weight_norm
    times = None
    if relative is not None and reference is not None:
        level, times = reference.level(relative), relative / reference.median
    return Risk(
        method=method.name,
        level=level,
        reason=f"{place(tokens, position)}, and {bound.sentence}{size(relative, times)}.",
        token_level=token_level,
        subject_tokens=tokens,
        position=position,
        layer=layer,
        key_norm=float(bound.mean.norm()),
        bare_key_norm=float(read.keys[0].norm()),
        key_cosine=cosine(read.keys[0], bound.mean),
        weight_norm=weight_norm,
        divisor=bound.divisor,
        divisor_ratio=bound.ratio,
        predicted_norm=bound.norm,
        relative_size=relative,
        predicted_error=_error(editor, layer, bound),
        times_median=times,
    )
