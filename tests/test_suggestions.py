"""Rewordings and neighbours that are suggested for a typed fact, against the facts that editlab brings along."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from editlab.core.fact_files import facts_of
from editlab.core.facts import Fact
from editlab.core.suggestions import OPENERS, Suggestions, suggestions


@cache
def known() -> tuple[Fact, ...]:
    return tuple(facts_of(None))


def as_typed(fact: Fact) -> Fact:
    """The fact as a visitor would type it."""
    return Fact.typed(fact.text, fact.subject, fact.target_new, fact.target_true)


@cache
def suggested() -> tuple[tuple[Fact, Suggestions], ...]:
    """For every seventh fact, what is suggested from all the others."""
    return tuple(
        (fact, suggestions(as_typed(fact), [each for each in known() if each is not fact])) for fact in known()[::7]
    )


def test_rewordings_ask_of_the_subject_and_are_not_the_sentence_itself() -> None:
    for fact, found in suggested():
        assert all(fact.subject in text for text in found.rewordings)
        assert fact.text not in found.rewordings
        assert len(set(found.rewordings)) == len(found.rewordings) <= 2
    assert sum(len(found.rewordings) == 2 for _, found in suggested()) >= 0.9 * len(suggested())


def test_neighbours_are_other_subjects_with_the_same_correct_answer() -> None:
    answers = {(text, fact.target_true) for fact in known() for text in (fact.text, *fact.neighborhood_prompts)}
    named = {(fact.subject, fact.target_true) for fact in known()}
    for fact, found in suggested():
        for text in found.neighbours:
            assert fact.subject.casefold() not in text.casefold()
            in_own_words = any(
                (subject, fact.target_true) in named and fact.prompt.replace("{}", subject) == text
                for subject, _ in named
            )
            assert in_own_words or (text, fact.target_true) in answers
    assert any(found.neighbours for _, found in suggested())


def test_the_relation_is_that_of_the_fact_or_none_is_claimed() -> None:
    claims = [(fact.relation, found.source) for fact, found in suggested() if "relation" in found.source]
    right = sum(f"relation {relation}" in source for relation, source in claims)
    assert right >= 0.9 * len(claims) >= 0.5 * len(suggested())


@pytest.mark.parametrize(
    ("prompt", "subject", "opened"),
    [
        ("The CEO of Apple is", "Apple", "the CEO of Apple is"),
        ("Marie Curie was born in the city of", "Marie Curie", "Marie Curie was born in the city of"),
        ("Der Turm steht in der Stadt", "Turm", None),  # no English
        ("Where is the tower of Pisa? It is in", "Pisa", None),
        ("Travellers to the Prado are in the city of", "Prado", None),  # the first word may be a name
    ],
)
def test_a_sentence_without_a_relation_is_put_after_an_opener(prompt: str, subject: str, opened: str | None) -> None:
    found = suggestions(Fact.typed(prompt, subject, "Rome", "Oslo"), [])
    assert found.rewordings == (tuple(opener.replace("{}", opened) for opener in OPENERS) if opened else ())
    assert found.neighbours == ()
    assert bool(found) == bool(opened)


def test_one_city_of_many_relations_tells_no_relation() -> None:
    found = suggestions(Fact.typed("Big Ben is in the city of", "Big Ben", "Rome", "London"), known())
    assert "relation" not in found.source


def test_what_a_fact_has_is_not_suggested_again() -> None:
    fact = next(fact for fact, found in suggested() if found.rewordings and found.neighbours)
    found = dict(suggested())[fact]
    assert found.lacking(fact) == replace(found, rewordings=(), neighbours=())
    assert found.lacking(replace(fact, paraphrase_prompts=())).rewordings == found.rewordings
    assert not found.lacking(fact)
