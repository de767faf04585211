"""A session as a notebook that makes every edit again through the Python API."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, fields
from typing import Any

from editlab.core.facts import Fact
from editlab.core.records import SessionState, Step

TOLERANCE = 1e-2  # relative, of each layer's drift


def notebook_of(state: SessionState, position: int | None = None) -> bytes:
    """The notebook as JSON, without outputs: every edit upon those that were in force when it was made.

    `position`: the step at which it ends; default: the state's. The last cell compares the drift with the recorded one.
    """
    end = state.position if position is None else position
    steps = state.steps[: end + 1]
    base = steps[0].provenance
    cells = [
        _text(
            f"# A session of editlab, made again\n\n{len(steps) - 1} edits of {base.get('model')}. The same model, "
            "seed and second moments give the same edits, up to the rounding of other hardware."
        ),
        _code(
            "from editlab import Editor, Fact, Session, load\n\n"
            f"model = load({str(base.get('model'))!r}, dtype={str(base.get('dtype'))!r})\n"
            f"session = Session(Editor(model, seed={int(base.get('seed', 0))}))"
        ),
        *_edits(steps),
    ]
    measured = steps[-1].measurement
    if len(steps) > 1 and measured is not None and measured.drift:
        recorded = {layer: drift.norm for layer, drift in measured.drift.items()}
        cells.append(
            _code(
                "session.put_in_force()\n"
                f"recorded = {recorded!r}\n"
                "drift = {layer: model.drift(layer)[0] for layer in recorded}\n"
                "apart = {layer: abs(drift[layer] - was) / was if was else drift[layer] "
                "for layer, was in recorded.items()}\n"
                f"assert max(apart.values()) < {TOLERANCE}, apart\n"
                "drift"
            )
        )
    notebook = {
        "cells": [{**cell, "id": f"cell-{number}"} for number, cell in enumerate(cells)],
        "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(notebook, ensure_ascii=False, indent=1).encode()


def _edits(steps: Sequence[Step]) -> Iterable[dict[str, Any]]:
    """A cell per edit, which first switches earlier ones off or on as they then were; and one for how they are now."""
    on = {step.id: True for step in steps[1:]}
    made: list[Step] = []

    def switched(wanted: set[str]) -> str:
        changed = [step for step in made if on[step.id] != (step.id in wanted)]
        on.update({step.id: not on[step.id] for step in changed})
        return "".join(f"session.toggle({step.index})\n" for step in changed)

    for step in steps[1:]:
        before = switched({each.id for each in made if step.was_made_upon(each.id)})
        facts = ", ".join(_fact(fact) for fact in step.facts)
        given = f"[{facts}]" if len(step.facts) > 1 else facts
        yield _code(f"{before}session.edit({given}, {step.method!r}, {dict(step.hyperparameters)!r})")
        made.append(step)
    if last := switched({step.id for step in made if step.enabled}):
        yield _code(last.rstrip())


def _fact(fact: Fact) -> str:
    """The call that makes a fact, without what is left at its default."""
    values = [(each.name, getattr(fact, each.name), each.default) for each in fields(fact) if each.init]
    said = (f"{name}={value!r}" for name, value, default in values if default is MISSING or value != default)
    return f"Fact({', '.join(said)})"


def _text(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def _code(source: str) -> dict[str, Any]:
    return {"cell_type": "code", "metadata": {}, "source": source, "outputs": [], "execution_count": None}
