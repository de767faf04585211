"""Before and after: completions of the watched prompts by the unedited model, at the step before, and now."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from editlab.analysis.chances import chance
from editlab.core.facts import Fact
from editlab.core.records import Completion, SessionState, Step
from editlab.page.controls import Fold, box, button, field, html, on_enter, panel, segments, show_if
from editlab.page.known import Knowledge, index_of
from editlab.page.wants import Say, Watch
from editlab.report.compare import Compared, changes_words, compared, effect, is_changed, neighbours
from editlab.report.html import NOTHING, bars, changed_words, empty, joined, marked_prompt, percent, tag
from editlab.report.readings import says_it_words

NAMES = {"rewrite": "Your sentence", "own": "Your prompt", "paraphrase": "Reworded", "neighborhood": "Neighbour"}
PAST = {"base": "unedited", "before": "before", "pinned": "pinned"}
AGAINST = [("Unedited model", "base"), ("Edit before", "before")]
VERDICTS = {"worked": "el-good", "said so before": "", "": ""}  # the others are bad
COLLAPSED = "The model has collapsed: whatever it still says counts for little."
SHOWN_OTHERS = 4  # paraphrases and neighbours shown outside the fold


class WhatChanged:
    """The panel without a page: whoever has it calls `show`."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._state: SessionState | None = None
        self._pinned: int | None = None
        self.against = segments(AGAINST, "Before:", "el-against")
        self._summary = html(css="el-summary")
        self._cards = html(css="el-cards")
        self._rest = html(css="el-cards")
        self._more = Fold("More neighbours", "Fewer neighbours", self._rest)
        self.own = field("A prompt of your own", "The Louvre is in the city of", css="el-wide")
        self.add = button("Watch it", lambda _: self._add(), "el-small")
        self._watched = box([], "el-row el-watched el-acts")
        self._problem = html(css="el-problem el-live")
        on_enter(self.own, self._add)
        content = [
            self.against,
            box([self.own, self.add], "el-row el-own el-acts"),
            self._problem,
            self._watched,
            self._summary,
            self._cards,
            self._more.widget,
        ]
        self.widget = panel("What changed", content, "el-after")
        self.against.observe(self._redraw, "value")

    def show(self, state: SessionState, pinned: str | None = None) -> None:
        """Draw the session; `pinned`: the id of the step to compare with."""
        if self._state is None or state.watched != self._state.watched:
            self._show_own(state.watched)
        self._state = state
        self._pin(index_of(state, pinned))
        self._redraw()

    def _pin(self, step: int | None) -> None:
        if step == self._pinned:
            return
        self._pinned = step
        chosen = "base" if step is None else "pinned"
        pinned = [] if step is None else [(f"Edit {step}, pinned" if step else "Unedited, pinned", "pinned")]
        self.against.options = [*AGAINST, *pinned]
        self.against.value = chosen

    def complain(self, sentence: str) -> None:
        self._problem.value = tag("p", sentence, role="alert") if sentence else ""

    def _show_own(self, prompts: Sequence[str]) -> None:
        self._watched.children = [
            button(
                f"{prompt} ✕",
                lambda _, gone=prompt: self._say(Watch(tuple(p for p in prompts if p != gone))),
                "el-chip",
                f"Stop watching: {prompt}",
            )
            for prompt in prompts
        ]

    def _add(self) -> None:
        prompt = self.own.value
        watched = self._state.watched if self._state else ()
        if not prompt.strip() or prompt in watched:
            self.complain(f"Already watched: {prompt}" if prompt.strip() else "Type a prompt to watch.")
            return
        self.complain("")
        self._say(Watch((*watched, prompt)))
        self.own.value = ""

    def _redraw(self, _: object = None) -> None:
        state = self._state
        if state is None:
            return
        step = state.steps[state.position]
        pinned = state.steps[self._pinned] if self._pinned is not None else None
        rows, fact = (
            compared(step.measurement, pinned.measurement if pinned else None),
            step.facts[0] if step.facts else None,
        )
        show_if(self.against, bool(state.position) and any(row.base or row.before or row.pinned for row in rows))
        main = [row for row in rows if row.now.kind in ("rewrite", "own")]
        others = [row for row in rows if row not in main]
        others.sort(key=lambda row: row.now.kind == "neighborhood" and not is_changed(row))  # what changed comes first
        self._summary.value = self._verdicts(state, step, rows, fact) if fact else ""
        if rows:
            shown = main + others[:SHOWN_OTHERS]
            known = {row.now.prompt for row in rows}
            waiting = [_waiting(prompt) for prompt in state.watched if prompt not in known]
            self._cards.value = joined([*waiting, *(self._card(row, fact) for row in shown)])
        else:
            self._cards.value = _nothing_yet(state)
        rest = others[SHOWN_OTHERS:]
        self._rest.value = joined(self._card(row, fact) for row in rest)
        show_if(self._more.widget, bool(rest))

    @staticmethod
    def _verdicts(state: SessionState, step: Step, rows: Sequence[Compared], fact: Fact) -> Markup:
        if not step.enabled:
            return tag("p", f"Edit {step.index} is switched off: what follows is said without it.", "el-headline")
        praised = state.health is None or state.health.status != "collapsed"
        return _headline(step, praised) + _summary(rows, fact, praised)

    def _card(self, row: Compared, fact: Fact | None) -> Markup:
        now, which = row.now, self.against.value
        past = row.past(which) if self._state and self._state.position else None  # the unedited model has no past
        new, true, subject = (fact.target_new, fact.target_true, fact.subject) if fact else (None, None, None)
        head = tag("span", NAMES.get(now.kind, now.kind), f"el-kind el-kind-{now.kind}") + tag(
            "span", marked_prompt(now.prompt, subject), "el-prompt"
        )
        if now.kind == "neighborhood" and is_changed(row):
            head += tag("span", "changed too", "el-badge el-badge-changed")
        old = past.completion if past else None
        lines = _said("now", changed_words(old, now.completion), "el-now")
        if old is not None and old != now.completion:
            lines += _said(PAST[which], old, "el-old")
        elif old is not None:
            lines += tag("span", f"same as {PAST[which]}", "el-same")
        elif which == "pinned":
            lines += tag(
                "span", f"This was not asked at edit {self._pinned}: watch it as a prompt of your own.", "el-same"
            )
        top = now.top[:5] if now.kind in ("rewrite", "own") else now.top[:3]
        before = {chance.token: chance.p for chance in past.top} if past else None
        body = bars(top, before, new=new, true=true, before_name=PAST[which])
        if now.p_new is not None:
            body += _chances(row, fact) if now.kind == "rewrite" else _chance_line(now, past)
        opened = {"open": ""} if now.kind == "rewrite" else {}
        summary = tag("summary", tag("span", head, "el-asked-it") + lines)
        return tag("details", summary + body, f"el-card el-card-{now.kind}", data_row=now.prompt, **opened)


class BeforeAfter(WhatChanged):
    def __init__(self, knowledge: Knowledge, say: Say) -> None:
        super().__init__(say)
        knowledge.draws(self.show, "state", "pinned")
        knowledge.draws(self.complain, "watch_problem")


def _waiting(prompt: str) -> Markup:
    """A prompt of the visitor's own whose answer is still to come."""
    head = tag("span", NAMES["own"], "el-kind el-kind-own") + tag("span", prompt, "el-prompt")
    soon = tag("span", tag("i"), "el-skeleton el-continuation el-now", role="img", aria_label="asking the model")
    return tag("div", tag("span", head, "el-asked-it") + soon, "el-card el-card-waiting")


def _said(when: str, continuation: str, css: str = "") -> Markup:
    words = tag("span", when, "el-when") + tag("span", joined(["…", continuation]))
    return tag("span", words, f"el-continuation {css}")


def _chances(row: Compared, fact: Fact | None) -> Markup:
    """The probabilities of the new and the correct answer, unedited, before and now, as a small table."""
    moments = [("unedited", row.base), ("before", row.before), ("now", row.now)]
    head = tag("tr", tag("td") + joined(tag("th", name, scope="col") for name, _ in moments))
    rows = Markup()
    for name, key, target in (
        ("New answer", "p_new", fact and fact.target_new),
        ("Correct answer", "p_true", fact and fact.target_true),
    ):
        values = [_chance(completion, key) for _, completion in moments]
        if any(value != NOTHING for value in values):
            label = tag("th", joined([f"{name} ", tag("small", target or "")]), scope="row")
            rows += tag("tr", label + joined(tag("td", value) for value in values))
    return tag("table", tag("thead", head) + tag("tbody", rows), "el-chances-table")


def _chance(completion: Completion | None, key: str) -> str:
    """ "8.9 % (71 % per token)" of an object of several tokens."""
    if completion is None:
        return NOTHING
    return chance(getattr(completion, key), getattr(completion, f"{key}_joint"), percent)


def _chance_line(now: Completion, past: Completion | None) -> Markup:
    """The probabilities of the new and the correct answer, past and now, in one line."""
    parts = []
    for name, key in (("New answer", "p_new"), ("Correct answer", "p_true")):
        if getattr(now, key) is not None:
            parts.append(tag("span", f"{name} {_chance(past, key)} → " + tag("b", _chance(now, key))))
    return tag("p", joined(parts), "el-chances")


def _headline(step: Step, praised: bool) -> Markup:
    """What the model says when asked freely: the headline of the edit, once it is measured."""
    found = step.measurement.says_it if step.measurement else None
    return tag("p", says_it_words(found, praised, others=False), "el-headline") if found else Markup()


def _summary(rows: Sequence[Compared], fact: Fact, praised: bool) -> Markup:
    """What the edit did to each kind of prompt, compared with the unedited model; `praised`: in a model that stands."""
    lines = []
    for kind, noun in (("rewrite", "your sentence"), ("paraphrase", "reworded")):
        if found := effect(rows, kind):
            before = f"({found.base} unedited)" if found.base is not None else "(not compared yet)"
            css = VERDICTS.get(found.verdict, "el-bad") if praised or found.verdict != "worked" else ""
            share = tag("b", f"{found.said} of {found.n}")
            lines.append(
                Markup("{}: {} {} {}").format(noun, share, tag("small", before), tag("span", found.verdict, css))
            )
    others = neighbours(rows)
    if others:
        lines.append(_neighbours_line(*others, praised))
    if not lines:
        return Markup()
    rather = Markup(" rather than {}").format(tag("b", fact.target_true, "el-true")) if fact.target_true else ""
    says = Markup("Says {}{}:").format(tag("b", fact.target_new, "el-new"), rather)
    fallen = "" if praised else tag("p", COLLAPSED, "el-bad")
    return tag("p", says) + tag("ul", joined(tag("li", line) for line in lines)) + fallen


def _neighbours_line(asked: Sequence[Compared], changed: Sequence[Compared], praised: bool) -> Markup:
    if not changed:
        share, css = tag("b", f"{len(asked)} of {len(asked)}"), "el-good" if praised else ""
        return Markup("neighbours: {} {}").format(share, tag("span", "same answer", css))
    share, judged = tag("b", f"{len(changed)} of {len(asked)}"), tag("span", "changed too", "el-bad")
    return Markup("neighbours: {} {} {}").format(share, judged, tag("small", f"({changes_words(changed)})"))


def _nothing_yet(state: SessionState) -> Markup:
    if state.steps[state.position].measurement is None or state.watched:
        return tag("div", 4 * tag("i"), "el-skeleton", role="img", aria_label="measuring the watched prompts")
    if state.position == 0:
        return empty(
            "The unedited model",
            "Press Apply edit: what the model says to your sentence, to it reworded and to neighbours appears here, "
            "before and after.",
        )
    return empty("No prompts for this edit", "Add a prompt of your own above.")
