"""The catalogue of a lab: its model, its methods and measures, and facts to try."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from editlab.core.chat import ChatFrame
from editlab.core.fact_files import SkippedRow, read_facts
from editlab.core.facts import Fact
from editlab.core.info import FactList, LabInfo, MethodInfo, PresetFact
from editlab.core.paths import resource
from editlab.editing.editor import Editor
from editlab.measures import Measures
from editlab.measures.tasks import Task
from editlab.methods import Method
from editlab.methods import info_of as info_of_method
from editlab.model.chat import chat_of
from editlab.model.model import EditableModel

SKIPPED_TOLD = 100  # skipped rows that are listed one by one


def info_of(
    editor: Editor,
    tasks: Mapping[str, Task],
    measures: Measures,
    facts: Sequence[Fact],
    source: str,
    skipped: Sequence[SkippedRow] = (),
) -> LabInfo:
    """Everything that a page needs to know about a lab before its first edit."""
    return LabInfo(
        model=editor.describe(),
        methods=tuple(_method(editor, method) for method in editor.methods.values()),
        tasks=tuple(task.info() for task in tasks.values()),
        presets=presets_of(editor.model.shape.name, facts),
        relations=tuple(sorted({fact.relation for fact in facts if fact.relation})),
        facts_source=source,
        n_facts=len(facts),
        measures=measures.infos(),
        lists=lists_of(),
        n_skipped=len(skipped),
        skipped=tuple(skipped[:SKIPPED_TOLD]),
        chat=_chat(editor.model),
    )


def _method(editor: Editor, method: Method) -> MethodInfo:
    """A method's description, without a fallback that this lab does not have."""
    info = info_of_method(method, editor.model.shape)
    return info if info.fallback in editor.methods else replace(info, fallback=None)


def _chat(model: EditableModel) -> ChatFrame | None:
    try:
        return chat_of(model)
    except ValueError:
        return None


def presets_of(model: str, facts: Sequence[Fact]) -> tuple[PresetFact, ...]:
    """The facts to try first with this model, from the project's own facts and from `facts`.

    `model` is the name of a shape, "" for a model whose shape has no name.
    """
    known = {fact.case_id: fact for fact in (*read_facts(resource("facts.json")), *facts)}
    rows = json.loads(resource("presets.json").read_text(encoding="utf-8"))
    return tuple(
        PresetFact(row["title"], row["why"], known[row["case_id"]], row.get("disabling", False))
        for row in rows
        if row["case_id"] in known and model in row.get("models", [model])
    )


def lists_of() -> tuple[FactList, ...]:
    """Lists of the project's own facts that are worth editing one after another."""
    known = {fact.case_id: fact for fact in read_facts(resource("facts.json"))}
    rows = json.loads(resource("lists.json").read_text(encoding="utf-8"))
    return tuple(FactList(row["title"], row["why"], tuple(known[case] for case in row["case_ids"])) for row in rows)
