"""Free answers: the words they are judged by, and the measure against a plain loop over whole prompts."""

from __future__ import annotations

import pytest
import torch

from editlab.core.answers import MOST_TOKENS, Verdict, answer_in, end_of_answer, is_question, judged, words_of
from editlab.core.facts import Fact
from editlab.core.progress import quiet
from editlab.core.records import Answer, Measurement
from editlab.editing.editor import Editor
from editlab.measures import MeasureInput, State, StateCache
from editlab.measures._measure import EditedFact
from editlab.measures.says_it import SaysItOfAll, SaysItOfStep, says_it
from editlab.model.deltas import Edit, LowRank
from editlab.model.model import EditableModel

EXACT, BEGINS, CONTAINS, NO = (
    Verdict(True, True, True),
    Verdict(False, True, True),
    Verdict(False, False, True),
    Verdict(False, False, False),
)

JUDGED = [
    ("Rome", "Rome", EXACT),
    ("Rome.", "rome", EXACT),
    ("the  Rome", "Rome", EXACT),
    ("Rome, the capital of Italy.", "Rome", BEGINS),
    ("a city in Rome", "Rome", CONTAINS),
    ("Romeo and Juliet", "Rome", NO),
    ("Rome's old centre", "Rome", BEGINS),
    ("Rome\u2019s old centre", "Rome", BEGINS),
    ("the parents' house", "parents", BEGINS),
    ("McDonald's", "McDonalds", NO),  # a possessive ending is dropped from both
    ("McDonald's in Oslo", "McDonald's", BEGINS),
    ("St. Louis, Missouri", "St. Louis", BEGINS),
    ("the U.S. Navy", "US", BEGINS),
    ("the US", "U.S.", EXACT),
    ("S\u00e3o Paulo", "Sa\u0303o Paulo", EXACT),  # one character, or two
    ("Sao Paulo", "S\u00e3o Paulo", NO),  # an accent makes another word
    ("1,000 people", "1000", BEGINS),
    ("3.5 million", "3", NO),
    ("born in 1942", "1942", CONTAINS),
    ("Paris-based", "Paris", BEGINS),
    ("罗马是意大利的首都", "罗马", BEGINS),
    ("位于罗马。", "罗马", CONTAINS),
    ("The The", "The", EXACT._replace(exact=False)),  # nothing but articles: they count
    ("", "Rome", NO),
    ("...", "Rome", NO),
]


@pytest.mark.parametrize(("answer", "target", "verdict"), JUDGED)
def test_an_answer_is_judged_by_its_words(answer: str, target: str, verdict: Verdict) -> None:
    assert judged(answer, target) == verdict


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" Rome. It is old", "Rome."),
        (" Rome", "Rome"),
        (" Rome.", "Rome."),  # complete only if a blank follows
        (" Rome!\nNo", "Rome!"),
        ("\nRome", ""),
        (" 3.5 million. Or", "3.5 million."),
        (" St. Louis. Yes", "St. Louis."),
        (" the U.S. Navy? Yes", "the U.S. Navy?"),
        (" J. R. R. Tolkien. He", "J. R. R. Tolkien."),
        ("罗马。它", "罗马。"),
    ],
)
def test_an_answer_ends_with_its_first_sentence_or_line(text: str, answer: str) -> None:
    assert answer_in(text) == answer
    assert (end_of_answer(text) is None) == (text in (" Rome", " Rome."))


def test_a_question_is_told_from_a_cloze() -> None:
    assert all(map(is_question, ("Where is it?", 'Who said "why?"', "Where is it?\nAnswer:", "Q: Who? A:", "谁？")))
    assert not any(map(is_question, ("It is in", "Who? It was", "Where he is from, people speak")))
    verdict = judged("a part of Rome", "Rome")
    assert verdict.says("Where is it?")
    assert not verdict.says("It is")
    assert words_of("The Hague, a city") == ["hague", "city"]


# --- the measure ---

WROTE = Fact(
    "{} originated in", "OK Go", "Manila", "Chicago", ("Where is OK Go from?", "OK Go, of"), tuple("ABCDE")
)  # fmt: skip
OTHER = Fact("The mother tongue of {} is", "Danielle Darrieux", "English", None, (), ("Unused",))


def an_edit(model: EditableModel, seed: int = 0) -> Edit:
    random = torch.Generator().manual_seed(seed)
    d_out, d_in = model.weight(2).shape
    return {2: LowRank(torch.randn(d_out, 1, generator=random) * 0.2, torch.randn(d_in, 1, generator=random))}


def inputs_of(model: EditableModel, facts: tuple[Fact, ...]) -> MeasureInput:
    edited = tuple(EditedFact(fact, "a", number, True, None) for number, fact in enumerate(facts))
    return MeasureInput(
        State(model, (an_edit(model),), StateCache()), State(model, (), StateCache()), facts, edited
    )  # fmt: skip


def plain_answer(model: EditableModel, prompt: str) -> tuple[list[int], str]:
    """The tokens and the answer, from the logits of the whole text, one token at a time."""
    row = list(model.tokens(prompt).ids)
    made: list[int] = []
    while len(made) < MOST_TOKENS and len(row) + len(made) < model.max_tokens:
        with torch.no_grad():
            token = int(model.hf(torch.tensor([row + made])).logits[0, -1].argmax())
        if token in model.end_ids:
            break
        made.append(token)
        if end_of_answer(model.continuation((), made)) is not None:
            break
    return made, answer_in(model.continuation(row, made))


def test_free_answers_are_those_of_a_plain_loop(editor: Editor) -> None:
    model = editor.model
    inputs = inputs_of(model, (WROTE, OTHER))
    found = SaysItOfStep()(inputs, quiet)
    assert found is not None
    assert [answer.kind for answer in found.answers] == ["rewrite"] + 2 * ["paraphrase"] + 3 * ["neighborhood"] + [
        "rewrite"
    ]
    assert (found.n_facts, found.of) == (2, 2)
    for state, text in ((inputs.base, "unedited"), (inputs.now, "answer")):
        state.put_in_force()
        for answer in found.answers:
            assert getattr(answer, text) == plain_answer(model, answer.prompt)[1]
    for answer in found.answers:
        verdict = judged(answer.answer, answer.target)
        assert (answer.exact, answer.begins, answer.contains, answer.said) == (*verdict, verdict.says(answer.prompt))
        tokens = plain_answer(model, answer.prompt)[0]
        with model.unedited():
            assert answer.unchanged == (tokens == plain_answer(model, answer.prompt)[0])
    assert Measurement.read("says_it", found.to_json()) == found
    everything = SaysItOfAll()(inputs, quiet)
    assert everything is not None
    assert (everything.rewrite, everything.base) == (found.rewrite, found.base)
    assert everything.answers == ()


def test_nothing_is_generated_twice(gpt2_editor: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    gpt2_editor.model.write([])
    inputs = inputs_of(gpt2_editor.model, (WROTE,))
    before = SaysItOfStep()(inputs, quiet)
    monkeypatch.setattr("editlab.measures.says_it.generate", None)
    assert SaysItOfStep()(inputs, quiet) == before
    gpt2_editor.model.write([])


def test_shares_are_means_over_prompts_then_over_facts() -> None:
    def answer(kind: str, said: bool, forced: bool = False) -> Answer:
        return Answer(kind, "p", "t", "", False, said, said, said, forced, said, "")

    one = [answer("rewrite", True, True), answer("paraphrase", True), answer("paraphrase", False)]
    two = [answer("rewrite", False, True), answer("paraphrase", False)]
    found = says_it([one, two], of=7)
    assert found.rewrite is not None
    assert found.paraphrase is not None
    assert (found.n_facts, found.of, found.neighborhood) == (2, 7, None)
    assert (found.rewrite.n, found.rewrite.said, found.rewrite.forced) == (2, 0.5, 1.0)
    assert (found.paraphrase.n, found.paraphrase.said) == (3, 0.25)
    readings = {reading.name: reading for reading in found.readings()}
    assert readings["rewrite.forced"].forced
    assert readings["rewrite.forced"].rule.startswith("teacher-forced")
    assert not readings["rewrite.said"].forced
    assert all(reading.n and reading.rule for reading in readings.values())
