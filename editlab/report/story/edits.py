"""One edit in a story: its fact, how it was made, completions before and after, and its side effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from editlab.analysis.anatomy import anatomy
from editlab.analysis.chances import chance
from editlab.analysis.history import Between, EditedFact
from editlab.core.facts import Fact
from editlab.core.records import Completion, SessionState, Step, largest
from editlab.report.compare import Compared, compared, tally_words
from editlab.report.html import changed_words, fact_line, joined, marked_prompt, number, percent, plural, table, tag
from editlab.report.readings import says_it_words
from editlab.report.story.papers import Methods, title_of

KINDS = {"rewrite": "the fact", "own": "own prompt", "paraphrase": "paraphrase", "neighborhood": "neighbour"}
SHOWN = 4  # prompts shown outside the fold
FACTS_SHOWN = 5


def edit_card(
    step: Step,
    state: SessionState,
    forgotten: Mapping[EditedFact, Between],
    took: Mapping[str, tuple[int, int]],
    known: Methods,
) -> Markup:
    """One edit."""
    idle = step.index > state.position or not step.enabled
    parts = [
        _heading(step),
        tag("p", joined(_about(step, state, known, *took.get(step.id, (0, 0))), " · "), "about"),
        *(tag("p", text, "note") for text in _notes(step, state)),
        _says_it(step),
        _before_and_after(step),
        *(tag("p", text, "note") for text in _consequences(step, state, forgotten)),
    ]
    return tag("article", joined(parts), "edit idle" if idle else "edit", id=f"edit-{step.index}")


def taken(steps: Sequence[Step]) -> dict[str, tuple[int, int]]:
    """By an edit's id: the number of its facts that were checked right after the edit, and of those that succeeded."""
    said: dict[EditedFact, bool] = {}
    for step in steps:
        found = step.measurement
        rewrites = [row.says_new for row in found.completions if row.kind == "rewrite"] if found else []
        said |= {(step.id, n): says for n, says in enumerate(rewrites) if says is not None and step.enabled}
        if found is not None and found.retention is not None:
            said |= {(recall.edit, recall.number): recall.said_new for recall in found.retention.recalls}
    counted: dict[str, tuple[int, int]] = {}
    for (edit, _), says in said.items():
        known, took = counted.get(edit, (0, 0))
        counted[edit] = known + 1, took + says
    return counted


def pill(word: str, css: str = "") -> Markup:
    return tag("span", word, f"pill {css or word}")


def _heading(step: Step) -> Markup:
    lines = [fact_line(fact) for fact in step.facts[:FACTS_SHOWN]]
    if len(step.facts) > FACTS_SHOWN:
        lines.append(tag("small", f"and {plural(len(step.facts) - FACTS_SHOWN, 'more fact')}"))
    return tag("h3", tag("span", str(step.index), "index") + joined(lines, Markup("<br>")))


def size_words(step: Step) -> str:
    """ "‖ΔW‖ 3.21, 4.1 % of ‖W₀‖" over the edited layers, with the largest share of a layer."""
    found = largest(step.size)
    if found is None:
        return ""
    layer, size = found
    where = "" if len(step.size) == 1 else f" in layer {layer}, where it is most"
    return f"‖ΔW‖ {number(step.norm)}, {percent(size.relative)} of ‖W₀‖{where}"


def _about(step: Step, state: SessionState, known: Methods, facts: int, said: int) -> list[str]:
    layers = ", ".join(map(str, sorted(step.size)))
    title = title_of(step.method, known)
    about = [f"{title} in layer{'s' if len(step.size) > 1 else ''} {layers}", size_words(step)]
    about.append(f"{step.seconds:.1f} s")
    if step.risk is not None:
        about.append(pill(f"{step.risk.level} risk", step.risk.level))
    if facts and step.enabled:
        words, css = ("worked", "succeeded") if facts == said else ("didn’t work", "failed")
        about.append(pill(f"{said} of {facts} worked" if facts > 1 else words, css))
    about += [pill("undone")] * (step.index > state.position) + [pill("switched off")] * (not step.enabled)
    return about


def _notes(step: Step, state: SessionState) -> list[str]:
    """Sentences on the risk, the guard's decision and the cause of the size, where they are worth saying."""
    notes = ["As it is now, this edit was never made: what follows is said without it."] * (not step.enabled)
    if step.guarded is not None and step.guarded.acted:
        notes.append(step.guarded.reason)
    elif step.risk is not None and step.risk.level != "low":
        notes.append(step.risk.reason)
    if step.trace is not None:
        found = anatomy(step, state.steps)
        if found.cause in ("divisor", "residual"):
            notes.append(found.sentence)
        notes += found.notes
    return notes


def _says_it(step: Step) -> Markup:
    found = step.measurement.says_it if step.measurement else None
    return tag("p", says_it_words(found), "note") if found else Markup()


def _before_and_after(step: Step) -> Markup:
    rows = compared(step.measurement)
    if not rows:
        return tag("p", "What the model says after this edit was not measured.", "note")
    fact = step.facts[0] if len(step.facts) == 1 else None
    main = [row for row in rows if row.now.kind in ("rewrite", "own")]
    others = main[SHOWN:] + [row for row in rows if row.now.kind not in ("rewrite", "own")]
    shown = tag("dl", joined(_words(row, fact) for row in main[:SHOWN]), "words")
    if not others:
        return shown
    name = f"{plural(len(others), 'more prompt')}, word by word"
    return (
        shown
        + _tally(rows, fact if step.enabled else None)
        + tag("details", tag("summary", name) + _table(others, fact))
    )


def _words(row: Compared, fact: Fact | None) -> Markup:
    subject = fact.subject if fact else None
    in_heading = fact is not None and row.now.prompt == fact.text
    parts = [] if in_heading else [tag("dt", marked_prompt(row.now.prompt, subject) + " …", "prompt")]
    old = row.before or row.base
    if row.base is not None and row.before is not None and row.base.completion != row.before.completion:
        parts.append(_said("unedited", row.base.completion, row.base, fact))
    if old is not None:
        parts.append(_said("before", old.completion, old, fact))
    changed = changed_words(old.completion if old else None, row.now.completion)
    parts.append(_said("after", changed, row.now, fact))
    return joined(parts)


def _said(when: str, words: str, said: Completion, fact: Fact | None) -> Markup:
    chances = _chances(said, fact)
    return tag("dt", when) + tag("dd", Markup("…") + words + (tag("small", chances) if chances else ""))


def _chances(said: Completion, fact: Fact | None) -> str:
    new, true = (fact.target_new, fact.target_true) if fact else ("new", "true")
    pairs = [(new, said.p_new, said.p_new_joint), (true or "true", said.p_true, said.p_true_joint)]
    return " · ".join(f"P({name}) {chance(p, joint, percent)}" for name, p, joint in pairs if p is not None)


def _new(said: Completion) -> str:
    return chance(said.p_new, said.p_new_joint, percent)


def _tally(rows: Sequence[Compared], fact: Fact | None) -> Markup:
    """ "Reworded, 2 of 2 say Rome (0 unedited). 1 of 6 neighbours changed too (Paris → Rome)."."""
    return tag("p", tally_words(rows, fact.target_new), "note") if fact else Markup()


def _table(rows: Sequence[Compared], fact: Fact | None) -> Markup:
    cells = [
        [
            KINDS.get(row.now.kind, row.now.kind),
            marked_prompt(row.now.prompt, fact.subject if fact else None),
            row.base.completion if row.base else "",
            changed_words(row.base.completion if row.base else None, row.now.completion),
            f"{_new(row.base) if row.base else ''} → {_new(row.now)}",
        ]
        for row in rows
    ]
    header = ["kind", "prompt", "unedited", "after", "P(new answer)"]
    return table("What else the model says", header, cells, css="wide")


def _consequences(step: Step, state: SessionState, forgotten: Mapping[EditedFact, Between]) -> list[str]:
    """The edit's effects on the model and on earlier edits, and whether it was forgotten."""
    notes: list[str] = []
    for change in state.health.changes if state.health else ():
        if change.step == step.index:
            notes.append(pill(change.kind) + f" {change.sentence}")
    lost = {edit for (edit, _), when in forgotten.items() if when.first == when.last == step.index}
    gone = [each for each in state.steps[1:] if each.id in lost]
    if gone:
        names = joined((_link(each) + f" ({each.facts[0].subject})" for each in gone), ", ")
        notes.append(Markup("With this edit {} {} forgotten.").format(names, "was" if len(gone) == 1 else "were"))
    later = [when for (edit, _), when in forgotten.items() if edit == step.id]
    if later:
        first = min(later, key=lambda when: when.last)
        where = "with " + _link(state.steps[first.last]) if first.first == first.last else str(first)
        notes.append(Markup("{} {}.").format(pill("forgotten"), where))
    return notes


def _link(step: Step) -> Markup:
    return tag("a", f"edit {step.index}", href=f"#edit-{step.index}")
