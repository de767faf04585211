"""Results that give their own numbers as a table, and free answers in words, for the page and for reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from editlab.core.records import Answer, Reading, Result, SaysIt
from editlab.report.html import NOTHING, full_stop, joined, number, percent, table, tag

FORCED = "teacher-forced"
HEADER = ["", "unedited", "now", "n", "how"]


def value_of(value: float | None, reading: Reading) -> str:
    """A reading's value, or another one in its unit."""
    if value is None:
        return NOTHING
    return percent(value) if reading.unit == "share" else number(value)


def readings_table(caption: str, results: Mapping[str, Result], titles: Mapping[str, str]) -> Markup:
    """Every number of these results with the unedited level, n and the rule; empty where there is no number."""
    rows: list[list[str]] = []
    for name, result in results.items():
        group = [_row(reading) for reading in result.readings()]
        if group:
            rows += [[tag("b", titles.get(name, name)), *([""] * 4)], *group]
    return table(caption, HEADER, rows, css="el-table-words wide") if rows else Markup()


def _row(reading: Reading) -> list[str]:
    forced = " " + tag("small", FORCED) if reading.forced and FORCED not in reading.title else ""
    now = tag("b", value_of(reading.value, reading))
    n = NOTHING if reading.n is None else str(reading.n)
    return [reading.title + forced, value_of(reading.base, reading), now, n, reading.rule]


def says_it_words(found: SaysIt, praised: bool = True, others: bool = True) -> Markup:
    """What the model says when asked freely, in a sentence: the headline of an edit.

    `praised`: whether a success is one; in a model that has collapsed it is none. `others`: what it says to reworded
    prompts and to neighbours too.
    """
    parts: list[str] = []
    rewrites = [answer for answer in found.answers if answer.kind == "rewrite"]
    if len(rewrites) == 1:
        (answer,) = rewrites
        css = ("el-good good" if praised else "") if answer.said else "el-bad bad"
        says = "Says it" if answer.said else "Does not say it"
        parts.append(tag("b", says, css) + Markup(": asked freely, “{}”").format(answer.answer))
    elif found.rewrite is not None:
        parts.append(Markup("Asked freely, it says {} of {} new objects").format(*_count(rewrites, "said")))
    for kind, words, name in (
        ("paraphrase", "says it elsewhere {} of {}", "said"),
        ("neighborhood", "neighbours’ answers the same word for word {} of {}", "unchanged"),
    ):
        some = [answer for answer in found.answers if answer.kind == kind]
        if some and others:
            parts.append(Markup(words).format(*_count(some, name)))
    return Markup(full_stop(joined(parts, "; ")))


def _count(answers: Sequence[Answer], name: str) -> tuple[Markup, int]:
    return tag("b", str(sum(getattr(answer, name) for answer in answers))), len(answers)


KINDS = {"rewrite": "the fact", "paraphrase": "paraphrase", "neighborhood": "neighbour"}


def answers_table(found: SaysIt) -> Markup:
    """Every free answer with its verdicts, and the unedited model's."""
    rows = [
        [
            KINDS[answer.kind],
            answer.prompt,
            answer.target,
            answer.unedited,
            answer.answer,
            _verdict(answer),
            "yes" if answer.forced else "no",
        ]
        for answer in found.answers
    ]
    header = ["kind", "prompt", "asked for", "unedited", "now", "verdict", FORCED]
    return table("Free answers", header, rows, css="el-table-words wide") if rows else Markup()


def _verdict(answer: Answer) -> str:
    words = ("exact", "begins", "contains")
    return next((word for word in words if getattr(answer, word)), "does not say it")
