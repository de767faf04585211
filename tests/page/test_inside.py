"""The panel Lens and trace, on widgets with a fake lab: the lens, traces and the sweep, before and after an edit."""

from __future__ import annotations

from editlab.page.app import App
from editlab.page.panels.inside import Inside
from tests.page.fake_lab import FakeLab
from tests.page.seen import alerts, seen
from tests.page.test_app import _quick, apply, fill, press_enter, run, visible

__all__ = ["_quick"]  # a fixture that every test here uses
TOWER = ("The Eiffel Tower is located in the city of", "Eiffel Tower", "Rome", "Paris")


async def opened(app: App, edits: int = 0) -> None:
    fill(app, *TOWER)
    for _ in range(edits):
        await apply(app)
    app.analysis.open("Lens and trace")


async def click(app: App, button: object) -> None:
    button.click()  # type: ignore[attr-defined]
    await app.runner.idle()


def inside(app: App) -> Inside:
    panel = app.analysis["Lens and trace"]
    assert isinstance(panel, Inside)
    return panel


def asked(lab: FakeLab, name: str) -> list[tuple]:
    return [call for call in lab.calls if call[0] == name]


def test_the_lens_of_the_form_before_and_after_an_edit_with_the_edited_layer_marked() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await opened(app)
        await click(app, inside(app).read)
        assert "Now" in seen(inside(app))
        assert "Difference" not in seen(inside(app))
        await opened(app, edits=1)
        await click(app, inside(app).read)
        assert [call[2:] for call in asked(lab, "lens")[2:]] == [
            (*TOWER, "auto", every, index) for every in (False, True) for index in (1, 0)
        ]  # the tokens that matter come first
        words = seen(inside(app))
        assert "Before" in words
        assert "After" in words
        assert "1 ● edited" in words
        inside(app).view.value = "p_new"
        assert "+60" in seen(inside(app))
        inside(app).view.value = "top"
        assert 'title="Rome, was Paris"' in inside(app)._lens.value

    run(scenario)


def test_a_cell_tells_its_likeliest_tokens() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await opened(app, edits=1)
        await click(app, inside(app).read)
        assert inside(app).token.value == 1  # the subject's last token
        inside(app).layer.value = 0
        assert "block 0" in seen(inside(app))
        assert "Paris 80 %" in seen(inside(app))
        inside(app).layer.value = 2
        assert "Rome ▲1 rank 1, was 2 80 %" in seen(inside(app))

    run(scenario)


def test_any_prompt_can_be_read_and_enter_reads_it() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await opened(app)
        inside(app).source.value = "prompt"
        await click(app, inside(app).read)
        assert alerts(inside(app)) == ["Type a prompt to look at."]
        inside(app).prompt.value = "Rain <b>fell"
        press_enter(inside(app).prompt)
        await app.runner.idle()
        assert asked(lab, "lens")[-1][2:6] == ("Rain <b>fell", "", "", "")
        assert "&lt;b&gt;fell" in inside(app)._lens.value
        inside(app).view.value = "p_true"
        assert "belongs to no fact with such an object" in seen(inside(app))
        await click(app, inside(app).trace)
        assert "Traces and sweeps are of a fact" in alerts(inside(app))[0]
        inside(app).prompt.value = "an impossible one"
        await click(app, inside(app).read)
        assert alerts(inside(app)) == ["The fake lab reads no impossible prompt"]

    run(scenario)


def test_a_trace_fills_its_grid_and_stands_beside_the_one_before() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await opened(app, edits=1)
        drawn: list[str] = []
        inside(app)._traced.observe(lambda change: drawn.append(change.new), "value")
        inside(app).kind.value = "mlp"
        await click(app, inside(app).trace)
        assert [call[3:] for call in asked(lab, "trace")] == [
            ("noise", "mlp", 10, "true", 1), ("noise", "mlp", 10, "true", 0),
        ]  # fmt: skip
        assert "Score so far" in drawn[0]
        assert "–" in drawn[0]
        words = seen(inside(app))
        assert "clean 0.6, corrupted 0.1 (10 runs, noise of σ 0.36, seed 1)" in words
        assert "Largest effect +0.30 ± 0.050 at “Tower”, layer 2" in words
        assert "Effect before" in words

    run(scenario)


def test_the_sweep_fills_the_form_with_its_best_layer() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        await opened(app)
        assert not visible(inside(app).take)
        await click(app, inside(app).sweep)
        assert "Trace the same fact to compare" in seen(inside(app))
        await click(app, inside(app).trace)
        assert "over 3 layers: −1.00" in seen(inside(app))
        assert "0 ★ best" in seen(inside(app))
        fill(app, "It is in", "It", "x")
        await click(app, inside(app).take)
        draft = app.make.draft
        assert draft is not None
        assert (draft.fact.text, draft.method, draft.hyperparameters) == (TOWER[0], "r-rome", {"layer": 0})

    run(scenario)


def test_what_cannot_be_done_is_told_and_work_can_be_stopped() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        fill(app, "", "", "")
        app.analysis.open("Lens and trace")
        await click(app, inside(app).trace)
        assert alerts(inside(app)) == ["The form holds no fact: type one, or choose one from the list."]
        inside(app).source.value = "edit"
        await click(app, inside(app).sweep)
        assert alerts(inside(app)) == ["No edit is in force."]
        await opened(app)
        inside(app).source.value = "form"
        fill(app, *TOWER[:3])
        await click(app, inside(app).trace)
        assert "no true object to trace" in alerts(inside(app))[0]
        inside(app).sweep.click()
        assert inside(app).read.disabled
        inside(app).job.cancel.click()
        await app.runner.idle()
        assert not inside(app).read.disabled

    run(scenario)
