"""Parts of the page alone: what they draw of a session, of a lab's session, and of a state that was kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

import editlab
from editlab.core.errors import UnknownSession
from editlab.page.live import Live
from editlab.page.opening import new_session
from editlab.page.parts import SessionChart, SessionWidget
from tests.page.fake_lab import FakeLab

CHARTS = (editlab.DriftChart, editlab.OverviewChart, editlab.RecallMap)


def finish(job: object) -> None:
    """Run a fake job to its end."""

    async def run() -> None:
        from editlab.page.work import follow

        await follow(job, interval=0)  # type: ignore[type-var]

    asyncio.run(run())


def edited(count: int = 2) -> tuple[FakeLab, str]:
    lab = FakeLab()
    key = new_session(lab)
    for fact in lab.search(limit=count):
        finish(lab.edit(key, [fact]))
    finish(lab.measure_due(key))
    return lab, key


def steps_in(chart: SessionChart) -> set[int]:
    """The steps that its points, bars or cells stand for."""
    drawn = chart.view.chart
    assert drawn is not None
    return {step for name in drawn.tappable for step in drawn.sources[name].data["step"]}


@pytest.mark.parametrize("kind", CHARTS)
def test_a_chart_draws_a_key_of_a_lab_and_a_kept_state_alike(kind: Callable[..., SessionChart]) -> None:
    lab, key = edited()
    live, kept = kind(key, lab), kind(lab.state(key))
    assert steps_in(live) == steps_in(kept)
    assert max(steps_in(live)) == 2


def test_a_session_of_this_process_is_drawn_and_refreshed() -> None:
    lab, key = edited(1)

    class Own:
        def state(self) -> object:
            return lab.state(key)

        def goto(self, index: int) -> None:
            lab.goto(key, index)

    chart = editlab.DriftChart(Own())
    finish(lab.edit(key, [lab.search(limit=2)[1]]))
    assert steps_in(chart) == {0, 1}
    chart.refresh()
    assert steps_in(chart) == {0, 1, 2}


def test_a_tap_goes_to_the_step_and_says_what_forbids_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def watch(_: Live) -> None: ...

    monkeypatch.setattr(Live, "watch", watch)
    lab, key = edited()

    async def tap(session: str, step: int) -> SessionChart:
        chart = editlab.DriftChart(session, lab)
        drawn = chart.view.chart
        assert drawn is not None
        points = drawn.sources["drift.points"]
        points.selected.indices = [points.data["step"].index(step)]
        await chart._runner.idle()
        return chart

    asyncio.run(tap(key, 1))
    assert lab.state(key).position == 1
    follows = asyncio.run(tap(lab.about(key).follow, 0))
    assert lab.state(key).position == 1
    assert 'role="alert"' in follows.children[-1].value


def test_units_and_log_are_the_charts_own() -> None:
    lab, key = edited(1)
    relative, norm = editlab.DriftChart(key, lab), editlab.DriftChart(key, lab, unit="norm", log=True)
    assert relative.view.chart is not None
    assert norm.view.chart is not None
    step = lab.state(key).steps[1]
    assert list(relative.view.chart.sources["size.bars"].data["size"]) == [s.relative for s in step.size.values()]
    assert list(norm.view.chart.sources["size.bars"].data["size"]) == [s.norm for s in step.size.values()]
    assert 0 not in norm.view.chart.sources["drift.points"].data["drift"]
    with pytest.raises(ValueError, match="unit must be one of relative, norm, per_element, got 'metres'"):
        editlab.DriftChart(key, lab, unit="metres")


def test_before_any_edit_a_chart_says_what_will_be_there() -> None:
    lab = FakeLab()
    chart = editlab.OverviewChart(lab.create(), lab)
    assert chart.view.chart is None
    assert "Make an edit" in chart.children[1].value


def test_before_and_after_shows_what_the_model_says() -> None:
    lab, key = edited(1)
    shown = editlab.BeforeAfter(key, lab)
    cards = "".join(part.value for part in shown.children[1].children[0].children if hasattr(part, "value"))
    (fact,) = lab.state(key).steps[1].facts
    assert fact.subject in cards
    assert "New answer" in cards


@pytest.mark.parametrize("kind", [*CHARTS, editlab.BeforeAfter])
def test_a_key_needs_its_lab_and_an_unknown_one_is_said(kind: Callable[..., SessionWidget]) -> None:
    with pytest.raises(ValueError, match="give the lab, too"):
        kind("a key")
    with pytest.raises(UnknownSession):
        kind("a key", FakeLab())


def test_it_follows_its_lab_where_a_loop_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    lab, key = edited(1)
    monkeypatch.setattr(Live.watch, "__defaults__", (0.01,))

    async def main() -> None:
        chart = editlab.DriftChart(key, lab)
        await asyncio.to_thread(finish, lab.edit(key, [lab.search(limit=2)[1]]))
        for _ in range(200):
            if steps_in(chart) == {0, 1, 2}:
                break
            await asyncio.sleep(0.01)
        assert steps_in(chart) == {0, 1, 2}
        chart.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert all(
            isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*others, return_exceptions=True)
        )

    asyncio.run(main())
