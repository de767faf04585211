"""What helps to look closer: the pinned step, ranks, levels, the table of steps, another run beside this one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from statistics import median

import pytest

from editlab.core.facts import Fact
from editlab.core.records import Completion, Drift, SessionState, Step, TokenChance
from editlab.page import work
from editlab.page.app import App
from editlab.page.known import index_of
from editlab.page.opening import opened
from editlab.page.panels.side_by_side import SideBySide, key_of
from editlab.page.panels.steps import Steps
from editlab.page.plots.chart import AXIS_WIDTH, LETTER, TITLE_INDENT
from editlab.page.plots.outcomes import perplexity_chart, preservation_chart
from editlab.page.plots.recall import recall_chart
from editlab.page.plots.side_by_side import compared_by, side_by_side_parts
from editlab.page.plots.weights import UNITS, drift_chart, size_chart, size_columns
from editlab.page.words import unchanged_words
from editlab.report.html import bars, moved
from tests.page.fake_lab import FakeLab
from tests.page.fake_model import DISABLING, W0
from tests.page.knowing import knowledge_of, nothing, sends_to
from tests.page.seen import alerts, buttons, row, seen, steps

Scenario = Callable[[App, FakeLab], Awaitable[None]]
PHONE, MARGIN = 338, 12  # pixels of a chart in a window of 390, and beside its plot at the right
BOLD = 6.6  # pixels of one letter in a chart's title


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work.follow, "__defaults__", (None, 0.001))


def run(scenario: Scenario, edits: int = 3) -> None:
    async def main() -> None:
        lab = FakeLab()
        session = lab.create()
        for fact in lab.facts[:edits]:
            lab.edit(session, [fact]).result()
        app = App(lab, await work.ask(opened, lab, session), settle=0.0)
        app.analysis.open("Export")  # no chart is drawn: that takes most of the time
        app.start()
        await app.runner.idle()
        await scenario(app, lab)

    asyncio.run(main())


def state_of(*methods: str) -> SessionState:
    lab = FakeLab()
    session = lab.create()
    for fact, method in zip(lab.facts, methods, strict=False):
        lab.edit(session, [fact], method).result()
    lab.measure_due(session).result()
    return lab.state(session)


def said(*tokens: str) -> Completion:
    chances = tuple(TokenChance(token, 1 / 2 ** (place + 1)) for place, token in enumerate(tokens))
    return Completion("A prompt", "own", f"{tokens[0]} and so on", chances)


@pytest.mark.parametrize(("norms", "told"), [((), False), ((0.0,), True), ((0.0, 0.1), False), ((0.0, 0.0), True)])
def test_an_edit_that_changed_no_weight_says_so(norms: tuple[float, ...], told: bool) -> None:
    sizes = {layer: Drift(norm, norm / W0, norm / 64) for layer, norm in enumerate(norms)}
    step = Step(1, "rome", (), None, {}, None, True, True, None, {}, 0.0, sizes)
    assert ("changed no weight" in unchanged_words(step)) == told


def test_a_token_tells_how_far_it_moved() -> None:
    assert "▲2" in moved(1, 3, 5)
    assert "rank 1, was 3" in moved(1, 3, 5)
    assert "▼1" in moved(2, 1, 5)
    assert moved(2, 2, 5) == moved(1, None, 0) == ""
    assert "was not in the top 5" in moved(1, None, 5)
    drawn = bars([TokenChance(" b", 0.6), TokenChance(" a", 0.3)], {" a": 0.7, " b": 0.1})
    assert drawn.index("rank 1, was 2") < drawn.index("rank 2, was 1")


def test_levels_of_an_edit_are_those_of_its_method() -> None:
    state = state_of("rome", "rome", "rome", "memit")
    ordinary = [size.norm for step in state.steps[4:] for size in step.size.values()]
    levels = size_columns(state, UNITS[1])["levels"]
    assert levels["y"] == [pytest.approx(3 * median(ordinary)), pytest.approx(W0)]
    assert [name.split(":")[0] for name in levels["name"]] == ["suspicious", "disabling"]
    assert levels["shift"][-1] + LETTER * len(levels["name"][-1]) <= PHONE - AXIS_WIDTH - MARGIN


def test_titles_of_charts_fit_a_phone() -> None:
    charts = [make(unit, log) for make in (drift_chart, size_chart) for unit in UNITS for log in (False, True)]
    charts += [preservation_chart(True), perplexity_chart(30.0, log=True), recall_chart([], 1)]
    titles = [plot.title.text for chart in charts for plot in chart.figures]
    assert [title for title in titles if TITLE_INDENT + BOLD * len(title) > PHONE] == []


def test_levels_do_not_stretch_the_axis() -> None:
    for chart in (size_chart(), perplexity_chart(30.0)):
        (plot,) = chart.figures
        assert all(type(renderer.glyph).__name__ != "Text" for renderer in plot.y_range.renderers)


@pytest.mark.parametrize("edits", [1, 2, 9])
def test_the_axis_ends_with_the_last_edit(edits: int) -> None:
    chart = size_chart()
    chart.draw({}, edits)
    assert edits < chart.figures[0].x_range.end < edits + 1


def test_a_pinned_step_is_compared_with_until_it_is_gone() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        app.analysis.open("Weights")
        buttons(steps(app)[1])["Pin"].click()
        span = app.analysis["Weights"].view.chart.figures[0].select_one({"name": "pinned"})
        assert (span.visible, span.location) == (True, 1)
        assert app.after.against.value == "pinned"
        assert "This was not asked at edit 1" in seen(app.after)
        assert "Unpin" in buttons(steps(app)[1])
        app.after.own.value = "The Louvre is in"
        app.after.add.click()
        await app.runner.idle()
        buttons(steps(app)[1])["Go to"].click()
        await app.runner.idle()
        buttons(steps(app)[3])["Go to"].click()
        await app.runner.idle()
        assert "Edit 1, pinned" in [label for label, _ in app.after.against.options]

        state = lab.state(app.session)
        app.draw(replace(state, steps=state.steps[:1], position=0))
        assert index_of(app.knowledge.now.state, app.knowledge.now.pinned) is None
        assert app.after.against.value == "base"
        assert app.analysis["Weights"].view.chart is None

    run(scenario)


def test_a_branch_is_a_copy_as_far_as_its_step() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        gone: list[str] = []
        sends_to(app.carrier, lambda key, says: gone.append(key))
        buttons(steps(app)[2])["Branch"].click()
        await app.runner.idle()
        assert len(lab.state(gone[0]).steps) == 3
        assert len(lab.state(app.session).steps) == 4

    run(scenario)


def test_a_row_tells_size_risk_and_harm() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        lab.edit(app.session, [Fact("The {} is in", DISABLING, "Oslo", "Paris")]).result()
        lab.measure_due(app.session).result()
        app.draw(lab.state(app.session))
        broken, ordinary = seen(steps(app)[4]), seen(steps(app)[1])
        assert "✕ jump" in broken
        assert "risk ✕ High" in broken
        assert "risk low" in ordinary
        assert "jump" not in ordinary

    run(scenario)


def test_the_table_of_steps_has_the_columns_that_are_chosen() -> None:
    state, table = state_of("rome", "rome"), Steps(knowledge_of(), nothing)
    table.show(state)
    assert "perplexity" in row(table, "edit")
    assert "correct answer, mean per token" not in row(table, "edit")
    table.checks["perplexity"].value = False
    table.checks["correct answer, mean per token"].value = True
    assert "perplexity" not in row(table, "edit")
    assert "correct answer, mean per token" in row(table, "edit")


def test_the_table_of_steps_tells_the_difference_from_the_pinned_one() -> None:
    state, table = state_of("rome", "rome"), Steps(knowledge_of(), nothing)
    table.show(state)
    table.pin(1)
    first, second = (state.steps[index].relative_size for index in (1, 2))
    assert first is not None
    assert second is not None
    assert f"{'+' if second > first else '−'}{100 * abs(second - first):.1f}" in seen(table)
    assert "difference from edit 1, pinned" in seen(table)


def test_a_link_is_as_good_as_its_key() -> None:
    assert key_of(" abc ") == key_of("http://127.0.0.1:8866/?session=abc") == "abc"


def test_runs_are_drawn_beside_each_other_where_both_were_measured() -> None:
    this, other = state_of("rome", "rome"), state_of("memit")
    parts = side_by_side_parts(this, other, compared_by(FakeLab().info()))
    assert [part.name for part in parts][:2] == ["drift", "recalled"]
    for part in parts:
        assert set(part.columns) == set(part.make().sources)
    drift = parts[0].columns
    assert (drift["this"]["step"], drift["other"]["step"]) == ([1, 2], [1])


def test_the_same_edits_are_made_by_another_method_in_a_session_of_their_own() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        app.analysis.open("Methods")
        app.draw(lab.toggle(app.session, 2))
        before = set(lab.sessions)
        lab.measure(app.session, ["bleeding"]).result()
        await app.runner.idle()
        app.draw(lab.state(app.session))
        told: list[str] = []
        app.analysis["Methods"]._words.observe(lambda change: told.append(change.new), "value")
        await app.comparing.remake("memit")
        assert "Checking" in told[0]  # the other run, which is being made and measured
        assert not any("Not checked yet" in words for words in told)
        assert "The same edits with MEMIT: 2 edits in force" in seen(app.analysis["Methods"])
        other = lab.state(next(key for key in lab.sessions if key not in before))
        assert [step.method for step in other.steps[1:]] == ["memit", "memit"]
        assert [step.facts for step in other.steps[1:]] == [(lab.facts[0],), (lab.facts[2],)]
        assert len(lab.state(app.session).steps) == 4
        assert other.steps[2].measurement.bleeding is not None  # measured as here, whatever the plan
        made = len(lab.sessions)
        await app.comparing.remake("r-rome")
        assert len(lab.sessions) == made  # the first other run is gone

    run(scenario)


def test_a_method_that_did_not_make_the_edits_is_proposed_until_one_is_chosen() -> None:
    panel = SideBySide(knowledge_of(), nothing)
    for methods, proposed in ((("rome", "rome"), "r-rome"), (("rome", "r-rome"), "memit"), (("memit",), "rome")):
        panel.show(state_of(*methods))
        assert panel.method.value == proposed
    panel.method.value = "memit"  # by the visitor
    panel.show(state_of("memit"))
    assert panel.method.value == "memit"


def test_what_cannot_be_opened_beside_is_told() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        app.analysis.open("Methods")
        app.analysis["Methods"].link.value = "no-such-key"
        app.analysis["Methods"].open.click()
        await app.runner.idle()
        assert alerts(app.analysis["Methods"])
        other = lab.create("another")
        lab.edit(other, [lab.facts[4]], "memit").result()
        app.analysis["Methods"].link.value = f"http://127.0.0.1/?session={other}"
        app.analysis["Methods"].open.click()
        await app.runner.idle()
        assert not alerts(app.analysis["Methods"])
        assert "another: 1 edit in force" in seen(app.analysis["Methods"])

    run(scenario)
