"""A pasted list of facts: what is read from it, and the edits that it becomes. Without a browser."""

from __future__ import annotations

import json
import re

import pytest

from editlab.core.fact_files import facts_in_text
from editlab.core.facts import Fact
from editlab.page import work
from editlab.page.app import App
from tests.page.fake_lab import FakeLab
from tests.page.fake_model import DISABLING
from tests.page.seen import alerts, buttons, seen, until
from tests.page.test_app import run

TOWER = Fact("The {} is located in the city of", "Eiffel Tower", "Rome", "Paris")
FRANCE = Fact("{} is in the continent of", "France", "Asia")
LINES = (
    "The {} is located in the city of | Eiffel Tower | Rome | Paris\n\n  France is in the continent of| France |Asia\n"
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work.follow, "__defaults__", (None, 0.001))


@pytest.mark.parametrize(
    "text",
    [
        LINES,
        json.dumps([TOWER.to_json(), FRANCE.to_json()], indent=1),
        f"{json.dumps(TOWER.to_json())}\n{json.dumps(FRANCE.to_json())}\n",
        "{} is located in the city of | Eiffel Tower | Rome\n".replace("{}", "The {}") + LINES.split("\n\n")[1],
    ],
)
def test_a_list_is_lines_or_rows_of_json(text: str) -> None:
    found = facts_in_text(text)
    assert [(fact.text.strip(), fact.target_new) for fact in found] == [
        (TOWER.text, "Rome"),
        (FRANCE.text, "Asia"),
    ]
    assert found.notice == "" or "not read" in found.notice


def test_a_line_may_begin_with_the_subjects_place() -> None:
    assert facts_in_text("{} is in the continent of | France | Asia").facts == (FRANCE,)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("just words", "holds no fact that can be used: row 1: a line must be prompt | subject | new object"),
        ("a | b | c | d | e", "got 5 parts"),
        ("A is | B | C", "must occur in the prompt"),
        ("[1, 2", "is not a JSON file"),
        ('[{"prompt": "x"}]', "the row lacks subject"),
    ],
)
def test_a_list_without_a_fact_is_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        facts_in_text(text)


def test_a_list_of_which_a_row_is_wrong_says_so() -> None:
    found = facts_in_text(LINES + "x | y")
    assert (len(found), [row.row for row in found.skipped]) == (2, [4])
    assert len(facts_in_text(" \n")) == 0


def test_a_list_is_one_edit_or_an_edit_for_each() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        pasted = app.make.pasted
        pasted.text.value = LINES
        assert "2 facts" in pasted._read.value
        app.make.method.take("memit")
        pasted.apply.click()
        await app.runner.idle()
        state = lab.state(app.session)
        assert [(step.method, len(step.facts)) for step in state.steps[1:]] == [("memit", 2)]
        app.make.method.take("rome")
        pasted.apart.value = True
        pasted.apply.click()
        for number in (1, 2):
            await until(lambda place=number: f"Editing, {place} of 2: " in seen(app.line))
        await app.runner.idle()
        state = lab.state(app.session)
        assert [(step.method, [fact.subject for fact in step.facts]) for step in state.steps[2:]] == [
            ("rome", ["Eiffel Tower"]),
            ("rome", ["France"]),
        ]

    run(scenario)


@pytest.mark.parametrize("answer", ["Apply all", "Leave these out"])
def test_a_list_with_risky_facts_asks_once_about_all_of_them(answer: str) -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        pasted = app.make.pasted
        buttons(app.make)["A list of facts…"].click()
        prompts = f"The {DISABLING} is located in the city of", f"The {DISABLING} is a sight of"
        risky = [f"{prompt} | {DISABLING} | Oslo" for prompt in prompts]
        pasted.text.value = "\n".join([LINES, *risky])
        pasted.apart.value = True
        pasted.apply.click()
        await until(lambda: "Finding out the risk" in seen(app.make.job))
        await app.runner.idle()
        assert lab.state(app.session).position == 0
        assert f"2 of 4 facts would probably break the model: The {DISABLING} is located" in seen(app.make)
        assert "Nothing is changed yet." in alerts(app.make)[0]
        buttons(app.make)[answer].click()
        await app.runner.idle()
        made = [step.facts[0].subject for step in lab.state(app.session).steps[1:]]
        assert made == ["Eiffel Tower", "France", *(2 * [DISABLING] if answer == "Apply all" else [])]
        assert answer not in buttons(app.make)

    run(scenario)


def test_a_list_that_the_visitor_is_asked_about_is_forgotten_with_its_text_and_made_by_a_guard_that_acts() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        pasted = app.make.pasted
        buttons(app.make)["A list of facts…"].click()
        for change in (lambda: setattr(pasted.text, "value", ""), lambda: app.make.method.take("r-rome")):
            app.make.method.take("rome")
            pasted.text.value = f"The {DISABLING} is located in the city of | {DISABLING} | Oslo"
            pasted.apply.click()
            await app.runner.idle()
            assert "1 of 1 fact would probably break the model" in seen(app.make)
            assert "Leave these out" not in buttons(app.make)
            change()
            assert "would probably break" not in seen(app.make)
        app.make.method.take("rome")
        app.make.guard.action.value = "r-rome"
        pasted.apply.click()
        await app.runner.idle()
        assert [step.method for step in lab.state(app.session).steps[1:]] == ["r-rome"]

    run(scenario)


def test_what_is_wrong_with_a_list_stands_at_the_list() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        pasted = app.make.pasted
        for text, sentence in (
            ("", "there are no facts in the list yet"),
            ("<b> | x", "a line must be"),
            (f"{LINES}The Eiffel Tower is located in the city of | Eiffel Tower | Oslo", "different objects"),
        ):
            pasted.text.value = text
            pasted.apply.click()
            await app.runner.idle()
            assert sentence in pasted._problem.value
            assert "<b>" not in pasted._problem.value
        assert lab.state(app.session).position == 0

    run(scenario)
