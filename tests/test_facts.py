"""Facts: what is accepted, what is refused with which sentence, and where a subject is found."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from editlab.core.chat import ChatFrame
from editlab.core.facts import Fact, case_id_of, check_batch, in_one_line, place_of, random_fact, search_facts
from editlab.model.chat import chat_of
from editlab.model.model import EditableModel
from editlab.session.session import Session
from tests.conftest import GOLDEN, attempt, tiny_model

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


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
        ("{} is" + "x" * 2_000, "Rome", "x", "at most 2000 characters"),
        ("{} is", "Rome", "x" * 101, "at most 100 characters"),
        ("{} is", "Rome", "\ud800", "half of a surrogate pair"),
        ("Annual planning of Annual", "Ann", "x", r"stands 2 times.*part of a longer word.*write \{\}"),
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


@pytest.mark.parametrize(
    "prompt",
    [
        "<|im_start|>user\nWhere is {}?<|im_end|>\n<|im_start|>assistant\n",
        "  {}  is\tin ",
        "{}\r\nlies in\u00a0",
        "\n\n{}\u3000的首都是",
    ],
)
def test_prompts_are_kept_to_the_last_character(prompt: str) -> None:
    others = (prompt.replace("{}", "Rome"),)
    fact = Fact(prompt, " Eiffel Tower ", " Rome\n", " Paris ", others, others, others)
    assert fact.prompt == prompt
    assert (fact.subject, fact.target_new, fact.target_true) == ("Eiffel Tower", "Rome", "Paris")
    assert fact.paraphrase_prompts == fact.neighborhood_prompts == fact.generation_prompts == others
    assert Fact.typed(fact.text, "Eiffel Tower", "Rome", "Paris").prompt == prompt
    assert Fact.from_json(json.loads(json.dumps(fact.to_json()))) == fact


def test_a_line_break_is_shown_in_one_line() -> None:
    assert in_one_line("a\nb\r\nc\rd\te") == "a⏎b⏎c⏎d⇥e"
    assert str(Fact("user\n{} is in", "Rome", "Italy")) == "user⏎Rome is in → Italy"


@pytest.mark.parametrize(
    ("prompt", "subject", "found"),
    [
        ("Annual reports of Ann are read by", "Ann", "Annual reports of {} are read by"),
        ("Ann met Anna; Ann lives in", "Ann", "Ann met Anna; {} lives in"),
        ("Ann and Ann-Marie live in", "Ann", "{} and Ann-Marie live in"),
        ("Ann's mother tongue is", "Ann", "{}'s mother tongue is"),
        ("(Ann) lives in", "Ann", "({}) lives in"),
        ("It was Ann.", "Ann", "It was {}."),
        ("Apollo 11 followed Apollo 1, built by", "Apollo 1", "Apollo 11 followed {}, built by"),
        ("1,000 and 1 are", "1", "1,000 and {} are"),
        ("Deutschlands Hauptstadt ist", "Deutschland", "{}s Hauptstadt ist"),
        ("The New York-based paper is", "New York", "The {}-based paper is"),
        ("法国人说法国的语言", "法国", "法国人说{}的语言"),
        ("ประเทศไทยอยู่ใน", "ไทย", "ประเทศ{}อยู่ใน"),
        ("Cafe\u0301 and Cafe are", "Cafe", "Cafe\u0301 and {} are"),
        ("Анна и Анна-Мария и Ан живут", "Ан", "Анна и Анна-Мария и {} живут"),
        ("Apple Inc. was founded in", "Apple Inc.", "{} was founded in"),
        ("J.R.R. met J.R. in", "J.R.", "J.R.R. met {} in"),
    ],
)
def test_a_subject_is_the_last_that_is_whole_words(prompt: str, subject: str, found: str) -> None:
    assert Fact.typed(prompt, subject, "x").prompt == found


def test_braces_say_which_occurrence_is_meant() -> None:
    fact = Fact.typed("{}ual reports of Ann", "Ann", "x")
    assert (fact.text, fact.subject_end) == ("Annual reports of Ann", 3)


@pytest.mark.parametrize(
    ("given_id", "kept"),
    [
        (7, 7),
        ("7", 7),
        (" 7 ", 7),
        ("007", "007"),
        ("Q42", "Q42"),
        ("-3", -3),
        ("9" * 30, "9" * 30),
        ("", None),
        (None, None),
        ("٣", "٣"),
    ],
)
def test_case_ids_are_numbers_or_text(given_id: Any, kept: Any) -> None:
    assert case_id_of(given_id) == kept
    assert Fact("{} is", "a", "b", case_id=given_id).case_id == kept


@pytest.mark.parametrize("wrong", [True, 7.5, 2**63, [1], "\ud800", "x" * 101])
def test_no_case_ids(wrong: Any) -> None:
    with pytest.raises(ValueError, match="case_id must be"):
        case_id_of(wrong)


def test_facts_are_found_by_number_or_name() -> None:
    facts = [Fact("{} is", "a", "b", case_id=case) for case in (7, "Q42", None)]
    assert search_facts(facts, case_id="7") == search_facts(facts, case_id=7) == facts[:1]
    assert search_facts(facts, case_id="Q42") == facts[1:2]
    assert search_facts(facts, case_id="Q4") == []
    assert len(search_facts(facts)) == 3
    assert random_fact(facts, 1) == random_fact(facts, 1)
    with pytest.raises(ValueError, match="no facts to choose from"):
        random_fact([], 1)


def test_a_batch_holds_no_fact_twice_and_no_two_that_contradict_each_other(facts: list[Fact]) -> None:
    check_batch(facts)
    check_batch([Fact("{} is in", "Rome", "Italy"), Fact("{} is in", "Paris", "Italy"), Fact("{} was in", "Rome", "x")])
    with pytest.raises(ValueError, match=r"facts 1 and 3 of the batch write different objects.*Italy.*Spain"):
        check_batch([Fact("{} is in", "Rome", "Italy"), facts[0], Fact("{}  is in", "Rome", "Spain")])
    with pytest.raises(ValueError, match="facts 1 and 2 of the batch are the same: Rome is in → Italy"):
        check_batch([Fact("{} is in", "Rome", "Italy", case_id=1), Fact("{} is in", "Rome", "Italy", case_id=2)])


@pytest.mark.parametrize("method", ["memit", "emmet"])
def test_a_contradiction_is_refused_before_anything_is_computed(
    session: Session, facts: list[Fact], method: str
) -> None:
    other = Fact(facts[0].prompt, facts[0].subject, "Lagos")
    with pytest.raises(ValueError, match="facts 1 and 4 of the batch write different objects"):
        session.edit([*facts, other], method)
    assert not session.log


# --- chats ---


def chatting(template: str | None = CHATML) -> EditableModel:
    model = tiny_model("llama")
    tokenizer = AutoTokenizer.from_pretrained(str(GOLDEN))
    tokenizer.chat_template = template
    return EditableModel(model.hf, tokenizer, "tiny-chat")


def test_a_fact_is_put_into_the_models_chat_template() -> None:
    model = chatting()
    frame = chat_of(model)
    plain = Fact("Where is the {}?\nIt is in", "Eiffel Tower", "Rome", "Paris", ("A?",), ("B?",), ("C?",), case_id=3)
    fact = frame.around(plain)
    messages = [{"role": "user", "content": plain.text}]
    assert fact.text == model.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert fact.text[: fact.subject_end].endswith("Where is the Eiffel Tower")
    assert fact.paraphrase_prompts == ("<|im_start|>user\nA?<|im_end|>\n<|im_start|>assistant\n",)
    assert frame.inside(fact) == plain
    assert frame.inside(plain) is None
    model.check(fact)


def test_a_template_that_sets_the_start_token_does_not_set_it_twice() -> None:
    model = chatting("{{ bos_token }}" + CHATML)
    start = model.tokenizer.bos_token
    before = chat_of(model).before
    assert model.tokens(before).ids.count(model.tokenizer.bos_token_id) == 1
    assert before.startswith(start) == (model.tokens("a").ids[0] != model.tokenizer.bos_token_id)


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        (None, "tiny-chat has no chat template"),
        ("{{ raise_exception('no users here') }}", "cannot be used: no users here"),
        ("{% for", "cannot be used"),
        ("nothing", "must hold a message once, not 0 times"),
        ("{{ messages[0]['content'] }}{{ messages[0]['content'] }}", "not 2 times"),
    ],
)
def test_a_model_without_a_template_that_can_be_used_says_so(template: str | None, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        chat_of(chatting(template))


def test_a_chat_that_has_braces_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="no other brace"):
        ChatFrame('{"user": "', '"}').around(Fact("{} is", "Rome", "x"))


# --- any fact at all ---

scripts = st.sampled_from(
    ["abcXYZ", "äéßø", "абвЯ", "法国首都", "อยู่ไทย", "한국어", "العربية", "हिन्दी", "0123", "🗼👩‍🚀", "-.,'’"]
)
words = scripts.flatmap(lambda letters: st.text(letters, min_size=1, max_size=8))
blanks = st.sampled_from([" ", " ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u3000", ""])
phrases = st.lists(st.tuples(words, blanks), min_size=1, max_size=6).map(lambda parts: "".join(a + b for a, b in parts))
anything = st.text(st.characters(), max_size=30) | phrases | st.sampled_from(["{}", "{", "\ud800", "x" * 3_000, ""])


@given(phrases, phrases, phrases, st.integers(0, 3))
def test_a_subject_in_a_prompt_is_found_or_asked_for(before: str, subject: str, after: str, times: int) -> None:
    prompt = before + f"{subject}{after}" * times
    name = subject.strip()
    fact = attempt(Fact.typed, prompt, subject, "Rome")
    if isinstance(fact, str):
        assert prompt.count(name) != 1 or not prompt.strip()
        assert "{}" in fact or "must occur" in fact
    else:
        assert fact.text == prompt
        assert fact.text[: fact.subject_end].endswith(fact.subject)
        assert fact.prompt.index("{}") == place_of(name, prompt)


@given(anything, anything, anything, st.none() | anything)
def test_whatever_is_typed_gives_a_fact_or_a_sentence(prompt: str, subject: str, new: str, true: str | None) -> None:
    fact = attempt(Fact.typed, prompt, subject, new, true)
    if not isinstance(fact, str):
        assert Fact.from_json(json.loads(json.dumps(fact.to_json()))) == fact
        assert subject.strip() in fact.text
