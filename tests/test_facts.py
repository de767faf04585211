"""Facts: what is accepted, what is refused with which sentence, and CounterFact's two schemas."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from editlab.core.facts import Fact, random_fact, read_facts, search_facts

FLAT = {
    "case_id": 7,
    "prompt": "The mother tongue of Ada Example is",
    "subject": "Ada Example",
    "target_new": "English",
    "ground_truth": "French",
    "rephrase_prompt": "Ada Example spoke the language",
    "locality_prompt": "The mother tongue of Bea Example is",
    "locality_ground_truth": "French",
}
ORIGINAL = {
    "case_id": 7,
    "requested_rewrite": {
        "prompt": "The mother tongue of {} is",
        "relation_id": "P103",
        "target_new": {"str": "English", "id": "Q1"},
        "target_true": {"str": "French", "id": "Q2"},
        "subject": "Ada Example",
    },
    "paraphrase_prompts": ["Ada Example spoke the language"],
    "neighborhood_prompts": ["The mother tongue of Bea Example is"],
    "generation_prompts": ["Ada Example's home is"],
}


def test_both_schemas_give_the_same_fact() -> None:
    flat, original = Fact.from_counterfact(FLAT), Fact.from_counterfact(ORIGINAL)
    assert flat.prompt == original.prompt == "The mother tongue of {} is"
    assert flat.paraphrase_prompts == original.paraphrase_prompts
    assert flat.neighborhood_prompts == original.neighborhood_prompts
    assert original.relation == "P103"
    assert original.text[: original.subject_end].endswith("Ada Example")


def test_a_neighbour_with_another_answer_is_no_neighbour() -> None:
    assert Fact.from_counterfact({**FLAT, "locality_ground_truth": "Dutch"}).neighborhood_prompts == ()


@pytest.mark.parametrize(
    ("prompt", "subject", "target", "sentence"),
    [
        ("", "Rome", "x", "prompt must not be blank"),
        ("  \n ", "Rome", "x", "prompt must not be blank"),
        ("Rome is", "Paris", "x", "'Paris' must occur in the prompt"),
        ("{} and {}", "Rome", "x", "exactly once"),
        ("{0} is", "Rome", "x", "must occur"),
        ("{} is {x}", "Rome", "x", "exactly once"),
        ("{} is", "R{}me", "x", "must not contain braces"),
        ("{} is", " ", "x", "subject must not be blank"),
        ("{} is", "Rome", "\t", "new object must not be blank"),
        ("{} is" + "x" * 600, "Rome", "x", "at most 600 characters"),
        ("{} is", "Rome", "x" * 101, "at most 100 characters"),
    ],
)
def test_bad_input_is_a_sentence(prompt: str, subject: str, target: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Fact.typed(prompt, subject, target)


def test_equal_objects_are_refused() -> None:
    with pytest.raises(ValueError, match="must differ"):
        Fact.typed("{} is", "Rome", "old", " old ")


def test_a_typed_prompt_may_hold_the_subject_itself() -> None:
    assert Fact.typed("The Eiffel Tower is in", "Eiffel Tower", "Rome").prompt == "The {} is in"
    assert Fact.typed("{} is in", "Eiffel Tower", "Rome", "").target_true is None


def test_a_fact_crosses_json() -> None:
    fact = Fact.from_counterfact(ORIGINAL)
    assert Fact.from_json(json.loads(json.dumps(fact.to_json()))) == fact


def test_files_that_are_none_are_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "facts.json"
    with pytest.raises(ValueError, match="no such file"):
        read_facts(file)
    for text, sentence in (
        ("{", "not a JSON file"),
        ('{"a": 1}', "JSON list"),
        ('[{"a": 1}]', "row 0: not a CounterFact row"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=sentence):
            read_facts(file)


def test_real_counterfact_is_read(test_data: Path) -> None:
    flat = read_facts(test_data / "counterfact" / "counterfact-val.json")
    original = read_facts(test_data / "counterfact" / "counterfact-full-schema-250.json")
    assert len(flat) == 1919
    assert len(original) == 250
    assert all(fact.neighborhood_prompts and fact.relation for fact in original)
    assert search_facts(flat, case_id=flat[3].case_id) == [flat[3]]
    found = search_facts(original, "", relation="P103")
    assert found
    assert {fact.relation for fact in found} == {"P103"}
    assert random_fact(flat, 1) == random_fact(flat, 1)
