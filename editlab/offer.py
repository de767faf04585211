"""What a lab offers: its model, methods, measures, and facts to try. Knows nothing of sessions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from editlab.api import FactList, LabInfo, MethodInfo, PresetFact
from editlab.editor import Editor
from editlab.facts import Fact, read_facts
from editlab.measures import Measures
from editlab.methods import describe as describe_method
from editlab.paths import resource
from editlab.tasks import Task


def info_of(
    editor: Editor, tasks: Mapping[str, Task], measures: Measures, facts: Sequence[Fact], source: str
) -> LabInfo:
    """All that a page needs to know of a lab before its first edit."""
    methods = tuple(
        MethodInfo(
            method.name,
            method.title,
            method.help,
            tuple(
                replace(knob, low=0, high=editor.model.n_layers - 1) if knob.name.startswith("layer") else knob
                for knob in describe_method(method)
            ),
            method.fallback,
        )
        for method in editor.methods.values()
    )
    return LabInfo(
        model=editor.describe(),
        methods=methods,
        tasks=tuple(task.info() for task in tasks.values()),
        presets=presets_of(editor.model.name, facts),
        relations=tuple(sorted({fact.relation for fact in facts if fact.relation})),
        facts_source=source,
        n_facts=len(facts),
        measures=measures.infos(),
        lists=lists_of(),
    )


def presets_of(model: str, facts: Sequence[Fact]) -> tuple[PresetFact, ...]:
    """What is worth trying first with this model, of the project's own facts and of these."""
    known = {fact.case_id: fact for fact in (*read_facts(resource("facts.json")), *facts)}
    rows = json.loads(resource("presets.json").read_text(encoding="utf-8"))
    return tuple(
        PresetFact(row["title"], row["why"], known[row["case_id"]], row.get("disabling", False))
        for row in rows
        if row["case_id"] in known and model in row.get("models", [model])
    )


def lists_of() -> tuple[FactList, ...]:
    """Runs of the project's own facts that are worth making."""
    known = {fact.case_id: fact for fact in read_facts(resource("facts.json"))}
    rows = json.loads(resource("lists.json").read_text(encoding="utf-8"))
    return tuple(FactList(row["title"], row["why"], tuple(known[case] for case in row["case_ids"])) for row in rows)
