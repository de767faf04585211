"""What is told and done before a risky edit, and what made it its size afterwards: on widgets with a fake lab."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from editlab.core.facts import Fact
from editlab.core.records import LEVELS
from editlab.page.app import App
from editlab.page.panels.guard_form import guard_words
from editlab.page.words import risk_words
from editlab.report.html import SIGNS
from tests.page.fake_lab import FakeLab
from tests.page.fake_model import DISABLING, risk_of
from tests.page.seen import buttons, field, row, seen, steps
from tests.page.test_app import _quick, apply, fill, run, visible

__all__ = ["_quick"]  # a fixture that every test here uses
PROMPT = "The {} is located in the city of"


def asked(lab: FakeLab) -> list[tuple]:
    return [call[2:] for call in lab.calls if call[0] == "risk"]


@pytest.mark.parametrize(("times", "words"), [(1.53, "1.5"), (54.4, "54"), (132.0, "130"), (12345.0, "12 000")])
def test_a_factor_is_told_without_an_exponent(times: float, words: str) -> None:
    risk = replace(risk_of(Fact(PROMPT, DISABLING, "Oslo"), "rome"), times_median=times)
    assert f"about {words} times larger than usual" in risk_words(risk)


def test_the_risk_is_told_before_the_edit_with_its_reason() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        line = app.make.risk
        fill(app, PROMPT, "Prado", "Oslo")
        await app.runner.idle()
        assert f"{SIGNS['low']} Low" in seen(line)
        assert not any(label.startswith("Edit with") for label in buttons(line))
        fill(app, PROMPT, DISABLING, "Oslo")
        await app.runner.idle()
        assert f"{SIGNS['high']} High" in seen(line)
        words = "This edit would be about 62 times larger than usual and would probably break the model, because"
        assert f"{words} the sentence starts with a subject of one token." in seen(line)
        assert "Edit with r-ROME instead" in buttons(line)
        assert f"Risk under r-ROME: {SIGNS['low']} Low" in seen(line)
        assert "divides by" not in seen(line)
        buttons(line)["Details"].click()
        assert "one <i>token</i>, and rome divides by 0.02" in seen(line)
        assert row(line, "times the usual") == ["62.5", "1"]  # of ROME, of r-ROME
        app.make.form.new.value = ""
        await app.runner.idle()
        assert seen(line) == ""

    run(scenario)


def test_another_method_is_proposed_only_where_it_is_less_risky() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        fill(app, PROMPT, DISABLING, "Oslo")
        await app.runner.idle()
        found = app.knowledge.now.assessment
        assert found is not None
        for mine, own in enumerate(LEVELS):
            for other, fallback in enumerate(LEVELS):
                risks = {"rome": replace(found.risks["rome"], level=own)}
                risks["r-rome"] = replace(found.risks["r-rome"], level=fallback)
                app.knowledge.change(assessment=replace(found, risks=risks))
                await app.runner.idle()
                assert ("Edit with r-ROME instead" in buttons(app.make.risk)) == (other < mine), (own, fallback)

    run(scenario)


def test_nothing_told_of_another_fact_is_on_the_screen_from_the_first_key_on() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        fill(app, PROMPT, "Prado", "Oslo", "Madrid")
        await app.runner.idle()
        assert "Low" in seen(app.make.risk)
        assert "The model says now" in seen(app.make.preview)
        app.make.form.subject.value = "Prad"  # nothing is awaited: this is what the next frame shows
        assert seen(app.make.risk) == seen(app.make.preview) == ""
        await app.runner.idle()
        app.make.method.choice.value = "memit"
        assert seen(app.make.risk) == ""
        assert "The model says now" in seen(app.make.preview)  # whatever the method

    run(scenario)


def test_an_edit_waits_for_its_risk_and_a_high_one_asks_once() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        def edits() -> int:
            return len(lab.state(app.session).steps) - 1

        for subject in ("Prado", DISABLING):
            fill(app, PROMPT, subject, "Oslo", "Madrid")
            app.make.apply.click()  # before its risk is known
            assert "Low" not in seen(app.make)
            assert "High" not in seen(app.make)
            await app.runner.idle()
        assert edits() == 1
        assert "Apply again to make this edit" in seen(app.make.risk)
        await apply(app)
        assert edits() == 2
        assert "Apply again" not in seen(app.make.risk)

    run(scenario)


def test_what_stood_in_the_form_at_apply_is_applied_and_a_high_risk_is_not_asked_about_in_another_text() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        for subject, made in (("Prado", 1), (DISABLING, 1)):
            fill(app, PROMPT, subject, "Oslo", "Madrid")
            app.make.apply.click()
            await asyncio.sleep(0)
            app.make.form.new.value = "Rome"
            await app.runner.idle()
            state = lab.state(app.session)
            assert [step.facts[0].target_new for step in state.steps[1:]] == made * ["Oslo"]
            assert "Apply again" not in seen(app.make.risk)
            assert app.make.form.new.value == "Rome"
        assert "The edit was refused, its risk being high" in seen(app.line)

    run(scenario)


def test_what_stands_in_the_browsers_fields_is_what_is_applied() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        fill(app, "People in Ja", "Ja", "Os", "Madrid")
        texts = {"Sentence to complete": "People in Japan speak", "About": "Japan", "New answer": "Oslo"}
        (mark,) = (name for name in field(app.make.method, "steps")._dom_classes if name.startswith("el-of-"))
        texts |= {f"{mark} steps": "7", "at": 1}
        app.make.typed.value = json.dumps(texts)  # as page.js does, right before the click
        app.make.apply.click()
        await app.runner.idle()
        step = lab.state(app.session).steps[1]
        assert (step.facts[0].text, step.facts[0].target_new) == ("People in Japan speak", "Oslo")
        assert step.facts[0].target_true == "Madrid"
        assert dict(step.hyperparameters) == {"steps": 7}

    run(scenario)


def test_the_risk_follows_the_method_and_the_words_of_the_model_are_not_asked_again() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        fill(app, PROMPT, DISABLING, "Oslo")
        await app.runner.idle()
        previews: list[object] = []
        preview = lab.preview
        lab.preview = lambda *arguments: previews.append(arguments) or preview(*arguments)  # type: ignore[method-assign]
        app.make.method.choice.value = "memit"
        await app.runner.idle()
        assert "Low" in seen(app.make.risk)
        field(app.make.method, "steps").value = "7"
        await app.runner.idle()
        assert asked(lab)[-1] == (("memit",), {"memit": {"steps": 7}})
        field(app.make.method, "steps").value = "x"
        await app.runner.idle()
        assert seen(app.make.risk) == ""
        assert previews == []

    run(scenario)


def test_one_click_makes_the_edit_with_the_safer_method() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        fill(app, PROMPT, DISABLING, "Oslo")
        field(app.make.method, "steps").value = "9"
        await app.runner.idle()
        app.make.risk.instead.click()
        await app.runner.idle()
        step = lab.state(app.session).steps[1]
        assert (step.method, dict(step.hyperparameters)) == ("r-rome", {"steps": 9})
        assert app.make.method.name == "r-rome"
        assert not any(label.startswith("Edit with") for label in buttons(app.make.risk))

    run(scenario)


def test_a_risk_that_is_not_known_says_why() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        def broken(*_: object) -> None:
            raise ValueError("nothing is known of <b>this</b>")

        lab.risk = broken  # type: ignore[method-assign,assignment]
        fill(app, PROMPT, "Prado", "Oslo")
        await app.runner.idle()
        assert "Risk not known: Nothing is known of <b>this" in seen(app.make.risk)

    run(scenario)


def test_the_guard_refuses_with_a_sentence_and_nothing_is_lost() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        fill(app, PROMPT, "Prado", "Oslo")
        await apply(app)
        app.make.guard.action.value = "refuse"
        fill(app, PROMPT, DISABLING, "Oslo", "Paris")
        await app.runner.idle()
        assert "Apply will not make this edit" in seen(app.make.risk)
        state = await apply(app)
        assert state.position == len(state.steps) - 1 == 1
        assert "The edit was refused, its risk being high" in seen(app.make.form)
        assert app.make.form.read().subject == DISABLING
        assert "Apply edit" in buttons(app.make)

    run(scenario)


@pytest.mark.parametrize(
    ("guard", "method", "words"),
    [("warn", "rome", "guard: warned"), ("r-rome", "r-rome", "guard: r-ROME instead of ROME")],
)
def test_the_timeline_says_what_the_guard_did(guard: str, method: str, words: str) -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        app.make.guard.action.value = guard
        fill(app, PROMPT, DISABLING, "Oslo")
        state = await apply(app)
        assert state.steps[1].method == method
        assert words in seen(steps(app)[1])
        assert "High" in seen(steps(app)[1])
        fill(app, PROMPT, "Prado", "Oslo")
        await apply(app)
        assert "guard" not in seen(steps(app)[2])

    run(scenario)


def test_a_guard_without_a_fallback_says_so() -> None:
    assert "with r-ROME" in guard_words("r-rome", "r-ROME")
    assert "nothing to fall back to" in guard_words("r-rome", None)
    assert guard_words("warn", None) == ""


def test_the_level_from_which_on_the_guard_acts_is_passed_on() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        given: list[dict] = []
        edit = lab.edit
        lab.edit = lambda *a, **named: given.append(named) or edit(*a, **named)  # type: ignore[method-assign]
        app.make.guard.action.value, app.make.guard.from_level.value = "refuse", "raised"
        fill(app, PROMPT, "Prado", "Oslo")
        await apply(app)
        assert given == [{"guard": "refuse", "guard_level": "raised"}]

    run(scenario)


def test_the_anatomy_of_a_first_edit_is_compared_with_nothing() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        fill(app, PROMPT, "Prado", "Oslo")
        app.make.method.choice.value = "memit"
        await apply(app)
        app.analysis.open("Weights")
        view = app.analysis["Weights"].anatomy
        assert "no other edit like it" in seen(view)
        assert "compared" not in seen(view).split()
        assert "33 % of the residual" in seen(view)
        buttons(view)["Show the other layers"].click()
        assert seen(view).count("of the residual") == 3  # MEMIT's layers

    run(scenario)


def test_the_anatomy_of_the_edit_in_force_stands_with_the_weights() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        for subject in ("Prado", "Hofburg", "Big Ben", DISABLING):
            fill(app, PROMPT, subject, "Oslo")
            await apply(app)
        assert app.health.why.description == "Why?"
        app.health.why.click()
        await app.runner.idle()
        assert app.analysis.opened == "Weights"
        view = app.analysis["Weights"].anatomy
        assert "Why edit 4 has its size" in seen(view)
        assert "divisor" in seen(view)
        assert row(view, "‖ΔW‖ ÷ ‖W₀‖")[-1].startswith("× ")
        assert row(view, "divisor")[-1].startswith("÷ ")
        assert "3 other edits like it" in seen(view)
        buttons(steps(app)[0])["Go to"].click()
        await app.runner.idle()
        assert not visible(view.widget)

    run(scenario)
