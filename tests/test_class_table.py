"""The file of a class: everyone is in it, whatever they typed."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

from editlab.analysis.class_table import class_csv
from editlab.core.facts import Fact
from editlab.core.info import Member, SessionInfo
from editlab.core.records import Completion, Measurement, SessionState, Step

FACT = Fact("{} is in", "Eiffel, Tower", "=Rome()", "Paris")


def member(name: str) -> Member:
    return Member(SessionInfo("1", name, "then", "now", 0, "tiny", False, "key", lesson="2 of 5"), "healthy")


def state(*facts: Fact) -> SessionState:
    said = tuple(Completion(fact.text, "rewrite", f" Rome\n{number}", ()) for number, fact in enumerate(facts))
    was = tuple(replace(one, completion=" Paris") for one in said)
    base = Step(0, "", (), None, {}, None, True, True, None, {}, 0.0)
    made = replace(base, index=1, id="a", facts=facts, method="memit", in_force=False)
    measured = replace(made, measurement=Measurement({}, said, was, was), index=2, in_force=True)
    return SessionState("1", (base, made, measured), 2, (), {})


def test_each_edited_fact_is_a_row_with_what_the_model_said() -> None:
    other = replace(FACT, subject="Louvre")
    rows = list(csv.DictReader(io.StringIO(class_csv([(member('Ann "A"'), state(FACT, other))]))))
    assert [(row["edit"], row["subject"], row["in_force"], row["answer"]) for row in rows] == [
        ("1", "Eiffel, Tower", "no", ""),
        ("1", "Louvre", "no", ""),
        ("2", "Eiffel, Tower", "yes", " Rome\n0"),
        ("2", "Louvre", "yes", " Rome\n1"),
    ]
    assert {(row["name"], row["tour"], row["health"], row["method"]) for row in rows} == {
        ('Ann "A"', "2 of 5", "healthy", "memit")
    }
    assert {row["answer_before"] for row in rows} == {"", " Paris"}


def test_who_made_no_edit_and_whose_session_is_gone_are_in_it_too() -> None:
    rows = list(csv.DictReader(io.StringIO(class_csv([(member("Ann"), state()), (member(""), None)]))))
    assert [(row["name"], row["session"], row["edit"], row["answer"]) for row in rows] == [
        ("Ann", "1", "", ""),
        ("", "1", "", ""),
    ]


def test_no_text_becomes_a_spreadsheet_s_formula() -> None:
    for name in ("=1+1", "+1", "-1", "@a", " =1+1", "\t=1"):
        (row, *_) = csv.DictReader(io.StringIO(class_csv([(member(name), state(FACT))])))
        assert row["name"] == f"'{name}"
        assert row["new_answer"] == "'=Rome()"
