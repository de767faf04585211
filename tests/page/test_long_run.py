"""A session of hundreds of edits on the page: what is drawn stays bounded, and what has not changed is left alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import ipywidgets as widgets
import pytest
from bokeh.document import Document
from bokeh.document.events import ColumnsStreamedEvent

from editlab.analysis.health import health_of
from editlab.core.records import Perplexity, Recall, Retention, SessionState
from editlab.page.known import Knowledge
from editlab.page.panels.facts_tab import FactsTab
from editlab.page.panels.overview import Overview
from editlab.page.panels.timeline import ROWS, Timeline
from editlab.page.panels.weights import Weights
from editlab.page.plots.recall import CELLS, SHIFT, mapped, recall_chart, recall_columns, recall_rows
from editlab.page.plots.weights import drift_chart, drift_columns
from editlab.page.wants import GoTo, Want
from tests.page.fake_lab import FakeLab
from tests.page.knowing import knowledge_of, nothing

EDITS = 240


@pytest.fixture(scope="module")
def state() -> SessionState:
    """A run whose steps say the same as those of a short one, but for what they are recalled by."""
    lab = FakeLab()
    key = lab.create()
    for fact in lab.facts[:3]:
        lab.edit(key, [fact]).result()
    short = lab.measure_due(key).result()
    steps = [short.steps[0]]
    for index in range(1, EDITS + 1):
        like = short.steps[1 + index % 3]
        recalls = tuple(Recall(f"e{edit}", 0, edit % 7 > 0, True, True, False) for edit in range(1, index + 1))
        found = replace(
            like.measurement,
            retention=Retention(recalls[-200:], index, min(200, index), 0.8, 0.9, 0.1),
            perplexity=Perplexity(27.0 + index / 1000, "a text", 100, 256),
        )
        steps.append(replace(like, index=index, id=f"e{index}", measurement=found))
    return replace(short, steps=tuple(steps), position=EDITS, health=health_of(steps))


def without_last(state: SessionState) -> SessionState:
    return replace(state, steps=state.steps[:-1], position=state.position - 1)


def rows(timeline: Timeline) -> list[str]:
    """The text of every row that is drawn, the newest first."""
    return [row.children[0].value for row in timeline._list.children]


def numbers(timeline: Timeline) -> list[int]:
    return [int(text.split("el-index")[1].split(">")[1].split("<")[0]) for text in rows(timeline)]


@pytest.fixture
def knowledge() -> Knowledge:
    return knowledge_of()


@pytest.fixture
def said() -> list[Want]:
    return []


@pytest.fixture
def timeline(knowledge: Knowledge, said: list[Want]) -> Timeline:
    return Timeline(knowledge, said.append)


def test_the_timeline_draws_so_many_rows_and_the_others_on_demand(
    timeline: Timeline, knowledge: Knowledge, state: SessionState, said: list[Want]
) -> None:
    knowledge.change(state=state)
    newest = list(range(EDITS, EDITS - ROWS, -1))
    assert numbers(timeline) == newest
    assert timeline.newer.disabled
    seen = list(newest)
    while not timeline.older.disabled:
        timeline.older.click()
        seen += [number for number in numbers(timeline) if number < seen[-1]]
        assert len(numbers(timeline)) == ROWS
    assert seen == list(range(EDITS, -1, -1))
    timeline.newer.click()
    assert numbers(timeline)[-1] == min(numbers(timeline)) > 0
    timeline._list.children[3].children[1].children[0].children[0].click()
    assert said == [GoTo(numbers(timeline)[3])]
    knowledge.change(state=replace(state, position=EDITS - 1))
    assert numbers(timeline) == newest
    knowledge.change(state=replace(state, position=60))
    assert 60 in numbers(timeline)
    assert len(timeline._rows) == ROWS


def test_a_row_stays_as_it_is_when_another_step_changes(
    timeline: Timeline, knowledge: Knowledge, state: SessionState
) -> None:
    knowledge.change(state=without_last(state))
    before = dict(zip(numbers(timeline), timeline._list.children, strict=True))
    texts = dict(zip(numbers(timeline), rows(timeline), strict=True))
    knowledge.change(state=state)
    after = dict(zip(numbers(timeline), timeline._list.children, strict=True))
    kept = before.keys() & after.keys()
    assert len(kept) == ROWS - 1
    assert all(after[number] is before[number] for number in kept)
    now = dict(zip(numbers(timeline), rows(timeline), strict=True))
    assert {number for number in kept if now[number] != texts[number]} == {EDITS - 1}  # which is in force no more


def test_a_short_log_has_no_pages(timeline: Timeline, knowledge: Knowledge, state: SessionState) -> None:
    knowledge.change(state=replace(state, steps=state.steps[:5], position=4))
    assert numbers(timeline) == [4, 3, 2, 1, 0]
    assert timeline._pages.layout.display == "none"


def html_of(widget: widgets.Widget) -> Iterator[str]:
    yield getattr(widget, "value", "") if isinstance(widget, widgets.HTML) else ""
    for child in getattr(widget, "children", ()):
        yield from html_of(child)


@pytest.mark.parametrize("name", ["overview", "facts", "weights"])
def test_a_long_table_is_made_when_somebody_opens_it(state: SessionState, name: str) -> None:
    pane = {"overview": Overview, "facts": FactsTab, "weights": Weights}[name](knowledge_of(), nothing)

    def length() -> int:
        return sum(map(len, html_of(pane.widget)))

    pane.show(without_last(state))
    closed = length()
    pane._fold.button.click()
    opened = length()
    pane.show(state)
    grown = length()
    pane._fold.button.click()
    assert opened > closed + 20 * EDITS
    assert opened < grown
    assert length() < closed + 200
    pane.leave()


@pytest.mark.parametrize("position", [EDITS, 100, 3])
def test_the_map_has_a_bound_and_holds_the_step_in_force(state: SessionState, position: int) -> None:
    here = replace(state, position=position)
    shown = mapped(here)
    drawn = recall_rows(here.steps, shown)
    columns = recall_columns(here, drawn)
    assert position in shown
    assert len(columns["cells"]["step"]) <= CELLS + 2 * SHIFT * 200
    assert set(columns["cells"]["step"]) <= set(shown)
    chart = recall_chart(drawn, shown.start)
    chart.draw(columns, shown.stop - 1)
    whole = {row.edit: row.states for row in recall_rows(here.steps)}
    assert all(row.states == {i: w for i, w in whole[row.edit].items() if i in shown} for row in drawn)
    short = replace(state, steps=state.steps[:40], position=39)
    assert mapped(short) == range(40)


def test_a_chart_is_sent_again_only_where_it_has_changed(state: SessionState) -> None:
    shown = mapped(state)
    drawn = recall_rows(state.steps, shown)
    chart = recall_chart(drawn, shown.start)
    columns = recall_columns(state, drawn)
    chart.draw(columns, EDITS)
    sent: list[str] = []
    for name, source in chart.sources.items():
        source.on_change("data", lambda _attr, _old, _new, name=name: sent.append(name))
    chart.draw(columns, EDITS)
    assert sent == []
    chart.draw(recall_columns(replace(state, position=EDITS - 1), drawn), EDITS)
    assert sent == ["now"]


def test_of_columns_that_have_grown_the_new_rows_are_sent(state: SessionState) -> None:
    before = without_last(state)
    chart = drift_chart()
    document = Document()
    document.add_root(chart.root)
    chart.draw(drift_columns(before), EDITS - 1)
    events: list[Any] = []
    document.on_change(events.append)
    chart.draw(drift_columns(state), EDITS)
    streamed = {id(event.model): event.data for event in events if isinstance(event, ColumnsStreamedEvent)}
    rows = streamed[id(chart.sources["points"])]
    assert set(rows["step"]) == {EDITS}
    assert len(rows["step"]) == len(state.steps[-1].size)
    drawn = chart.sources["points"].data
    assert {key: list(values) for key, values in drawn.items()} == drift_columns(state)["points"]
