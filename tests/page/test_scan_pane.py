"""The result of a scan on the page: points, tables, and the way of a fact into the form."""

from __future__ import annotations

import math
from dataclasses import replace

import ipywidgets as widgets
import pytest

from editlab.page.app import App
from editlab.page.panels.scan import ScanPane
from editlab.page.plots.scan import DRAWN, scan_chart, scan_columns
from tests.page.fake_lab import FakeLab
from tests.page.fake_model import make_facts, make_scan
from tests.page.seen import seen
from tests.page.test_app import _quick, fill, run

__all__ = ["_quick"]  # a fixture that every test here uses
ROWS = make_scan(make_facts())


def test_every_fact_is_a_point_coloured_by_outcome_and_shaped_by_risk() -> None:
    columns = scan_columns(ROWS)
    assert {level: len(found["row"]) for level, found in columns.items()} == {"low": 14, "raised": 1, "high": 1}
    low = columns["low"]
    red = [row for row, color in zip(low["row"], low["color"], strict=True) if color == "#a3262f"]
    assert red == [13]
    assert low["row"][-1] == 13  # what is disabling lies on top
    assert (columns["high"]["row"], columns["high"]["size"]) == ([12], [3.0])


def test_what_has_no_place_on_log_axes_is_left_out_and_what_matters_is_kept() -> None:
    rows = [replace(ROWS[0], divisor=None), replace(ROWS[0], relative_size=math.inf), *[ROWS[1]] * DRAWN, ROWS[12]]
    columns = scan_columns(rows)
    assert columns["high"]["row"] == [len(rows) - 1]
    assert len(columns["low"]["row"]) == DRAWN - 1
    assert not {0, 1} & set(columns["low"]["row"])


def test_the_axes_have_ticks_over_the_whole_range() -> None:
    (plot,) = scan_chart(ROWS).figures
    ticks = plot.yaxis[0].ticker.ticks
    assert min(ticks) <= min(row.relative_size for row in ROWS)
    assert max(ticks) >= max(row.relative_size for row in ROWS)


def opened(app: App) -> ScanPane:
    app.analysis.open("Scan")
    pane: ScanPane = app.analysis["Scan"]
    return pane


def test_a_click_puts_the_fact_into_the_form() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        pane = opened(app)
        source = pane.view.chart.sources["high"]
        source.selected.indices = [0]
        await app.runner.idle()
        assert app.make.form.read() == lab.facts[12]
        assert source.selected.indices == []
        pane.kind.value = "Missed"
        assert len(pane.facts.options) == 1
        pane.facts.index = 0
        await app.runner.idle()
        assert app.make.form.read() == lab.facts[13]

    run(scenario)


def test_a_fact_that_is_not_here_is_named_in_a_sentence() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        fill(app, "", "", "")
        pane = opened(app)
        pane.kind.value = "All"
        unknown = next(place for place, row in enumerate(pane._listed) if row.case_id is None)
        pane.facts.index = unknown
        await app.runner.idle()
        assert "This fact has no case id among the facts here" in seen(pane)
        lab.facts = lab.facts[:3]
        pane.kind.value = "Disabling"
        pane.facts.index = 0
        await app.runner.idle()
        assert f"There is no case {pane._listed[0].case_id} among" in seen(pane)
        assert app.make.form.prompt.value == ""

    run(scenario)


def test_risk_stands_against_outcome() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        pane = opened(app)
        words = "".join(child.value for child in pane.widget.children if isinstance(child, widgets.HTML))
        assert "16 facts, each edited alone on the unedited model by ROME" in words
        assert "2 disabling edits" in words
        low = words.split("Low</span>")[1].split("</tr>")[0]
        assert [cell in low for cell in ("<td>14</td>", "<td>1</td>", "<td>7.1\xa0%</td>")] == [True] * 3
        assert [label for label, _ in pane.kind.options] == ["Disabling 2", "Missed 1", "False alarms 1", "All 16"]

    run(scenario)


def test_a_tab_for_a_scan_is_there_only_where_one_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        assert ("Scan" in [tab for tab, _ in app.analysis.tabs.options]) == (lab.scan() is not None)

    run(scenario)
    monkeypatch.setattr(FakeLab, "scan", lambda _: None)
    run(scenario)


def test_a_scan_of_another_model_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = FakeLab().scan()
    monkeypatch.setattr(FakeLab, "scan", lambda _: replace(scan, settings={"model": "<b>gpt2</b>, 12"}))

    async def scenario(app: App, lab: FakeLab) -> None:
        pane = opened(app)
        assert "another model than the one here: &lt;b&gt;gpt2" in pane.widget.children[0].value

    run(scenario)
