"""The chapters of a story around its edits: summary, forgetting, methods, provenance, sources."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from editlab.analysis.history import Between, broken_between, first_forgotten, forgotten_between
from editlab.core.records import Measurement, SessionState, Step, largest
from editlab.report.html import HEALTH_WORDS, SIGNS, joined, number, percent, plural, table, tag
from editlab.report.readings import readings_table
from editlab.report.story.edits import pill, taken
from editlab.report.story.figures import Figure
from editlab.report.story.papers import Methods, cited, papers_of_steps, title_of

BROKEN_SHOWN = 12
TITLES = {
    "says_it": "Free answers, last edit",
    "says_it_all": "Free answers, all edits so far",
    "counterfact_plus": "CounterFact+, all edits so far",
    "overfit": "Overfitting, all edits so far",
    "portability": "Portability, all edits so far",
    "preservation": "Preservation error",
}
FEW = 9  # steps that need no table of contents
REPLAY = (
    "With the session’s replay file (Export, on its page) the same weights are made again: to the last bit on the same "
    "device, torch build and number of threads, within a tolerance elsewhere; --recompute makes every edit anew and "
    "compares."
)


def in_short(state: SessionState, known: Methods) -> Markup:
    """What was done, and what became of the model."""
    edits = state.steps[1:]
    if not edits:
        return tag("p", "No edit was made: this is the unedited model.")
    off = sum(not step.enabled for step in edits[: state.position])
    undone = len(edits) - state.position
    asides = [f"{n} {word}" for n, word in ((off, "switched off"), (undone, "undone")) if n]
    by = _listed([*dict.fromkeys(title_of(step.method, known) for step in edits)])
    words = [f"{plural(len(edits), 'edit')} by {by}{', ' * bool(asides)}{_listed(asides)}."]
    counted = taken(state.steps).values()
    facts, said = sum(known for known, _ in counted), sum(took for _, took in counted)
    if facts:
        words.append(f"{said} of {plural(facts, 'fact')} worked: the model gave the new answer at once.")
    if lost := len(first_forgotten(state.steps)):
        words.append(f"{plural(lost, 'fact')} that had worked {'was' if lost == 1 else 'were'} forgotten later.")
    return tag("p", " ".join(words)) + verdict(state) + tiles(state)


def _listed(words: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join([*([", ".join(words[:-1])] if words[1:] else []), *words[-1:]])


def verdict(state: SessionState) -> Markup:
    """Health with its reason, and the other changes."""
    health = state.health
    if health is None:
        return Markup()
    word = f"{SIGNS[health.status]} {HEALTH_WORDS[health.status]}"
    others = [change.sentence for change in health.changes if change.sentence != health.reason]
    reasons = joined(tag("p", sentence) for sentence in (health.reason, *others))
    return tag("div", Markup("<b>Health</b> {}{}").format(pill(word, health.status), reasons), "verdict")


def tiles(state: SessionState) -> Markup:
    """The headline numbers of the step in force, next to the unedited model's."""
    now, base = state.steps[state.position].measurement, state.steps[0].measurement
    if now is None:
        return Markup()
    found = [("Drift, largest layer", *_drift(now))]
    said = now.says_it_all or now.says_it
    if said is not None and said.rewrite is not None:
        words = f"of {plural(said.rewrite.n, 'edited prompt')}, free answers"
        found.insert(0, ("Says it", percent(said.rewrite.said), words))
        forced = f"of {plural(said.rewrite.n, 'edited prompt')}, argmax at every token"
        found.insert(1, ("Teacher-forced", percent(said.rewrite.forced), forced))
    if now.retention is not None and now.retention.kept is not None:
        found.append(("Edits remembered", percent(now.retention.kept), f"of {now.retention.succeeded} that worked"))
    if now.perplexity is not None:
        before = base.perplexity if base else None
        words = f"unedited {number(before.value)}" if before else plural(now.perplexity.n, "token")
        found.append(("Perplexity", number(now.perplexity.value), words))
    for name, score in list(now.tasks.items())[:1]:
        old = base.tasks.get(name) if base else None
        words = f"of {score.n}" + (f", unedited {percent(old.accuracy)}" if old else "")
        found.append((score.title, percent(score.accuracy), words))
    if (facts := now.bleeding or now.unrelated) is not None:
        found.append(("Unrelated facts still right", percent(facts.share), f"of {facts.n}"))
    for name, other in now.others.items():
        unedited = base.others.get(name) if base else None
        words = f"unedited {number(unedited.value)}" if unedited else other.unit
        found.append((other.title or name, number(other.value), words))
    cells = (tag("dt", title) + tag("dd", value + tag("small", words)) for title, value, words in found)
    return tag("dl", joined(tag("div", cell) for cell in cells), "tiles")


def _drift(now: Measurement) -> tuple[str, str]:
    found = largest(now.drift)
    if found is None:
        return "0", "no layer is edited"
    layer, drift = found
    return percent(drift.relative), f"of ‖W₀‖, layer {layer}"


def measured(state: SessionState) -> Markup:
    """Every number of the step in force that comes with its rule."""
    now = state.steps[state.position].measurement
    return readings_table("Measured at the end: unedited, now, n and rule", now.results, TITLES) if now else Markup()


def index(state: SessionState, known: Methods) -> Markup:
    """All edits in one table, where there are many."""
    if len(state.steps) <= FEW:
        return Markup()
    forgotten = sorted(forgotten_between(state.steps).items(), key=lambda item: -item[1].last)
    lost = {edit: between for (edit, _), between in forgotten}
    rows, took = [], taken(state.steps)
    for step in state.steps[1:]:
        facts, said = took.get(step.id, (0, 0))
        rows.append(
            [
                _edit(step),
                _fact(step),
                title_of(step.method, known),
                percent(step.relative_size),
                step.risk.level if step.risk else "",
                f"{said} of {facts}" if facts > 1 else ("yes" if said else "no") if facts else "",
                _between(lost[step.id], state) if step.id in lost else "",
            ]
        )
    header = ["edit", "fact", "method", "‖ΔW‖ ÷ ‖W₀‖", "risk", "worked", "forgotten with"]
    return table("All edits", header, rows, css="wide edits")


def charts(figures: Sequence[Figure]) -> Markup:
    """Every figure with its numbers folded under it."""
    if not figures:
        return tag("p", "Nothing was measured that could be drawn.")
    return tag("div", joined(map(_figure, figures)), "figures")


def _figure(figure: Figure) -> Markup:
    numbers = table(figure.title, figure.header, figure.rows, css="numbers")
    return tag("figure", figure.drawing + tag("details", tag("summary", "as a table") + numbers))


def forgetting(state: SessionState) -> Markup:
    """Which edited facts were forgotten and when, and which unrelated ones broke."""
    made, lost = {step.id: step for step in state.steps}, forgotten_between(state.steps)
    rows = [
        [_edit(made[edit]), str(made[edit].facts[number]), _between(when, state), _written(when, state)]
        for (edit, number), when in sorted(lost.items(), key=lambda item: item[1].last)
        if edit in made
    ]
    measured = any(step.measurement and step.measurement.retention for step in state.steps)
    if rows:
        header = ["edit", "fact", "forgotten with", "which wrote"]
        edited = table("Edited facts, by when they were first forgotten", header, rows, css="wide")
    else:
        edited = tag(
            "p",
            "No edit that worked was forgotten." if measured else "Whether the edits are remembered was not measured.",
        )
    return edited + _broken(state)


def _broken(state: SessionState) -> Markup:
    broken = sorted(broken_between(state.steps).items(), key=lambda item: item[1].last)
    rows = [[_between(when, state), fact.prompt, fact.target] for fact, when in broken]
    if not rows:
        return Markup()
    header = ["first broken with", "prompt", "correct answer"]
    caption = f"{plural(len(rows), 'unrelated fact')} that the unedited model knew and that broke"
    shown = table(caption, header, rows[:BROKEN_SHOWN], css="wide")
    if len(rows) <= BROKEN_SHOWN:
        return shown
    rest = table("The others", header, rows[BROKEN_SHOWN:], css="wide")
    return shown + tag("details", tag("summary", f"{len(rows) - BROKEN_SHOWN} more") + rest)


def _edit(step: Step) -> str:
    return tag("a", f"edit {step.index}", "edit-link", href=f"#edit-{step.index}") if step.index else "before any edit"


def _between(when: Between, state: SessionState) -> str:
    """The one edit, linked, or the edits between which it was."""
    return _edit(state.steps[when.last]) if when.first == when.last else str(when)


def _written(when: Between, state: SessionState) -> str:
    return _fact(state.steps[when.last]) if when.first == when.last else ""


def _fact(step: Step) -> str:
    return str(step.facts[0]) if step.facts else ""


def methods(state: SessionState, known: Methods) -> Markup:
    """Every method as it was set."""
    used = dict.fromkeys(
        (title_of(step.method, known), json.dumps(dict(step.hyperparameters), ensure_ascii=False))
        for step in state.steps[1:]
    )
    rows = [[title, _settings(json.loads(values))] for title, values in used]
    return table("Methods as they were set", ["method", "hyperparameters"], rows, css="wide") if rows else Markup()


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())


def provenance(state: SessionState) -> Markup:
    """Model, machine, versions, contexts and second moments; where edits differ, all values that occurred."""
    provenances = [step.provenance for step in state.steps]
    model = state.model
    rows: list[tuple[str, list[Any]]] = [
        ("model", [model.get("name")]),
        ("parameters", [f"{model['parameters']:,}".replace(",", " ")] if model.get("parameters") else []),
        ("layers", [model.get("layers")]),
        ("why this model", [model.get("reason")]),
        ("revision", _distinct(provenances, "model_revision")),
        ("fingerprint", _distinct(provenances, "model_fingerprint")),
        ("device", _distinct(provenances, "device") or [model.get("device")]),
        ("precision", _distinct(provenances, "dtype") or [model.get("dtype")]),
        ("threads", _distinct(provenances, "threads")),
        ("seed", _distinct(provenances, "seed")),
        ("versions", [_settings(versions) for versions in _distinct(provenances, "versions")]),
        ("second moments", [_settings(moments) for moments in _distinct(provenances, "second_moments")]),
        ("contexts", [" | ".join(contexts) for contexts in _distinct(provenances, "contexts")]),
        ("session", [state.id]),
    ]  # fmt: skip
    cells = [[name, joined(map(str, values), Markup("<br>"))] for name, values in rows if any(values)]
    return table("Where everything came from", ["", ""], cells, css="wide facts")


def _distinct(provenances: Iterable[Mapping[str, Any]], name: str) -> list[Any]:
    found: list[Any] = []
    for each in provenances:
        value = each.get(name)
        if value not in (None, *found):
            found.append(value)
    return found


def sources(state: SessionState, known: Methods) -> Markup:
    """How to make it again, and what to cite."""
    papers = papers_of_steps(state.steps, known)
    versions: list[Mapping[str, Any]] = _distinct((step.provenance for step in state.steps), "versions")
    version = versions[0].get("editlab", "") if versions else ""
    replay = "editlab replay editlab-replay.zip"
    return (
        tag("p", REPLAY)
        + tag("pre", f"{replay}\n{replay} --recompute")
        + tag("p", f"To cite: editlab {version}, a laboratory for knowledge editing, and")
        + tag("ul", joined(tag("li", cited(paper)) for paper in papers))
    )
