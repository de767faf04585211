"""What a text is in tokens, and what tokens are in text, with tokenizers of every make."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from tokenizers import AddedToken

from editlab.core.facts import Fact
from editlab.core.follow_ups import FollowUp
from editlab.core.joining import is_direct, joined, joint
from editlab.editing import contexts
from editlab.editing.contexts import sample_contexts
from editlab.measures import State, StateCache
from editlab.measures._measure import questions_of
from editlab.methods._base import ContextPlan
from editlab.model.model import EditableModel
from editlab.model.reading import COMPLETION_TOKENS, Watched, complete, object_scores, own_prompts, watched_of
from editlab.report.html import role_of
from tests.conftest import tiny_model
from tests.tokenizing import MAKES, model_of

PAIRS = (
    ("The capital of Italy is", "Rome"),
    ("The mother tongue of Danielle Darrieux is", "French"),
    ("Zürich lies in", "Switzerland"),
    ("It was in", "1990"),
    ("法国的首都是", "罗马"),
    ("The capital of 意大利 is", "罗马"),
    ("<|user|>\nWhere is it?\n", "Rome"),
    ("She said:", "€"),
)
TEXTS = ("The capital of Italy is Rome, isn't it?", "法国的首都是巴黎。", "Zürich costs € 5 .", "a  b\n c")


@pytest.fixture(scope="module", params=MAKES)
def model(request: pytest.FixtureRequest) -> EditableModel:
    return model_of(request.param)


@pytest.mark.parametrize(("prompt", "target"), PAIRS)
def test_a_prompt_and_its_object_are_the_tokens_of_both_together(
    model: EditableModel, prompt: str, target: str
) -> None:
    before, whole = model.tokens(prompt).ids, model.tokens(joined(prompt, target)).ids
    assert whole[: len(before)] == before  # the tokenizer is a prefix code here
    assert before + model.target_ids(target, prompt) == whole
    assert model.continuation(before, model.target_ids(target, prompt)) == joint(prompt, target) + target


def test_no_token_of_the_tokenizers_own_stands_after_a_prompt(model: EditableModel) -> None:
    plain = model.tokenizer("Rome is", add_special_tokens=False)["input_ids"]
    given = model.tokenizer("Rome is")["input_ids"]
    assert list(model.tokens("Rome is").ids) == given[: given.index(plain[-1]) + 1]
    assert list(model.tokens("Rome is").ids[-len(plain) :]) == plain
    typed = model.tokens("Rome</s>").ids  # what a user types stays
    assert typed[-1] == model.tokenizer.eos_token_id


@pytest.mark.parametrize("text", TEXTS)
def test_what_follows_reads_as_written_wherever_a_text_is_cut(model: EditableModel, text: str) -> None:
    ids = model.tokens(text).ids
    for cut in range(len(ids) + 1):
        before = model.continuation((), ids[:cut])
        if "\N{REPLACEMENT CHARACTER}" not in before:
            assert before + model.continuation(ids[:cut], ids[cut:]) == text


def test_a_sampled_context_reads_as_it_was_sampled(model: EditableModel, monkeypatch: pytest.MonkeyPatch) -> None:
    following = model.target_ids("capital of Italy", "The")
    monkeypatch.setattr(contexts, "generate", lambda _model, rows, *_args, **_options: [following for _ in rows])
    found = sample_contexts(model, ContextPlan(groups=((1, 5),), starters=("The",)), 0)
    assert found[2] == "The capital of Italy. {}"
    assert found[1].lstrip() == "capital of Italy. {}"


def test_the_number_of_sampled_tokens_leaves_out_what_a_tokenizer_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = {}
    for make in ("prepend", "prepend with BOS"):
        given: list[int] = []
        with monkeypatch.context() as patched:
            patched.setattr(
                contexts,
                "generate",
                lambda _model, rows, n, *_, given=given, **__: given.append(n) or [(5,)] * len(rows),
            )
            sample_contexts(model_of(make), ContextPlan(starters=("The", "You")), 0)
        lengths[make] = given
    assert lengths["prepend"] == lengths["prepend with BOS"]


def test_a_token_is_shown_as_it_stands_in_running_text(model: EditableModel) -> None:
    ids = [i for i in model.tokens("It: The capital of Italy is Rome.").ids if i not in model.tokenizer.all_special_ids]
    assert "".join(map(model.token_text, ids)).strip() == "It: The capital of Italy is Rome."
    assert "".join(map(model.token_text, model.target_ids("Rome", "It is"))) == " Rome"
    assert "".join(map(model.token_text, model.target_ids("罗马", "首都是"))) == "罗马"


def test_a_token_that_is_part_of_a_character_is_shown_as_its_bytes(model: EditableModel) -> None:
    told = "".join(map(model.token_text, model.target_ids("☃", "a")))
    assert told.strip() == "⟨E2⟩⟨98⟩⟨83⟩"
    shown = [model.token_text(i) for i in range(len(model.tokenizer))]
    parts = [text for text in shown if "⟨" in text]
    assert len(parts) >= 128
    assert len(set(parts)) == len(parts)
    assert not any("\N{REPLACEMENT CHARACTER}" in text for text in shown)
    assert len(set(shown)) == len(shown)


def test_bytes_of_several_characters_are_told_apart() -> None:
    model = tiny_model("gpt2")
    shown = [model.token_text(i) for i in range(len(model.tokenizer))]
    assert len(set(shown)) == len(shown)
    assert any(re.fullmatch("⟨[0-9A-F]{2}( [0-9A-F]{2})*⟩", text) for text in shown)
    assert model.token_text(len(model.tokenizer) + 3) == f"⟨token {len(model.tokenizer) + 3}⟩"


def test_a_token_that_is_an_object_is_known_as_such_and_a_piece_of_one_is_nobodys(model: EditableModel) -> None:
    for prompt, target in (("It is", "Rome"), ("首都是", "罗马")):
        first = model.token_text(model.target_ids(target, prompt)[0])
        whole = first.strip() == target
        assert role_of(first, target, "Paris") == ("new" if whole else "")
        assert role_of(first, "Paris", target) == ("true" if whole else "")
        assert role_of(first, "Paris", "巴黎") == ""
    assert role_of(" Rome", "Rome", "Paris") == "new"
    assert role_of("罗马", "Paris", "罗马") == "true"


def test_no_two_of_the_likeliest_tokens_are_shown_alike(model: EditableModel) -> None:
    (said,) = complete(model, [Watched("法国的首都是", "own")])
    assert len({chance.token for chance in said.top}) == len(said.top) == 8


@pytest.mark.parametrize(
    ("prompt", "target", "between"),
    [
        ("The capital of France is", "Rome", " "),
        ("法国的首都是", "罗马", ""),
        ("法国的首都是", "Rome", ""),
        ("フランスの首都は", "ローマ", ""),
        ("เมืองหลวงของฝรั่งเศสคือ", "โรม", ""),
        ("프랑스의 수도는", "로마", " "),
        ("法国的首都是：", "罗马", ""),
        ("法国的首都是:", "罗马", ""),
        ("The capital of 法国 is", "罗马", " "),
        ("Столица Франции —", "Рим", " "),
        ("Answer:\n", "Rome", ""),
        ("Answer: ", "Rome", ""),
        ("法国的首都是 ", "罗马", ""),
        ("「東京」", "日本", ""),
        ("It is called “", "Rome", ""),
        ("Rome (", "Italy", ""),
        ("It is called «Rome»", "still", " "),
        ("", "Rome", " "),
    ],
)
def test_an_object_follows_after_a_blank_where_its_script_has_blanks(prompt: str, target: str, between: str) -> None:
    assert joint(prompt, target) == between
    assert is_direct(prompt, target) == (not between and not prompt.endswith((" ", "\n")))
    assert joined(prompt, target) == prompt + between + target


# --- a fact's own choice ---

CHOICES = (("The capital of {} is", "Italy", "Rome", "nothing"), ("{}的首都是", "法国", "罗马", "blank"))


def likelihood(model: EditableModel, prompt: str, joint: str, target: str) -> float:
    """exp of the mean log-likelihood of an object's tokens in the whole text, from the model itself."""
    before = len(model.tokens(prompt).ids)
    ids = torch.tensor([model.tokens(prompt + joint + target).ids])
    with torch.no_grad():
        logs = model.hf(input_ids=ids).logits.log_softmax(-1)[0, before - 1 : -1]
    return float(logs.gather(1, ids[0, before:, None]).mean().exp())


@pytest.mark.parametrize(("prompt", "subject", "target", "chosen"), CHOICES)
def test_a_fact_chooses_what_joins_its_objects_to_its_prompts(
    model: EditableModel, prompt: str, subject: str, target: str, chosen: str
) -> None:
    fact = Fact(prompt, subject, target, "Paris", (f"{subject}: it is",), (f"{subject} und",), joined_by=chosen)
    between = {"nothing": "", "blank": " "}[chosen]
    assert fact.joint == between != replace(fact, joined_by="auto").joint
    assert is_direct(fact.text, target, chosen) == (chosen == "nothing")
    ids = model.target_ids(target, fact.text, chosen)
    assert model.tokens(fact.text).ids + ids == model.tokens(fact.text + between + target).ids
    state = State(model, (), StateCache())
    for said in state.complete(watched_of(fact), lambda _: None):
        assert said.p_new == pytest.approx(likelihood(model, said.prompt, between, target), rel=1e-3)
        assert said.p_true == pytest.approx(likelihood(model, said.prompt, between, "Paris"), rel=1e-3)
    questions = questions_of((fact.text, *fact.paraphrase_prompts), fact)
    cached = dict(state.cache.objects)
    assert set(questions) <= set(cached)
    assert {q: s.nll for q, s in cached.items()} == pytest.approx(
        {q: s.nll for scores in object_scores(model, cached) for q, s in scores.items()}, rel=1e-3
    )
    again = StateCache()
    again.load(json.loads(json.dumps(state.cache.to_json())))
    assert again.objects.keys() == cached.keys()


def test_a_choice_that_the_script_would_make_is_no_choice() -> None:
    assert Fact("{} is in", "Rome", "Italy", joined_by="blank").asks_new == ("Rome is in", "Italy")
    assert Fact("{}的首都是", "法国", "罗马", joined_by="nothing").asks_new == ("法国的首都是", "罗马")
    for wrong in ("", " ", "none", None, 1, ["blank"]):
        with pytest.raises(ValueError, match="joined_by must be one of auto, blank, nothing, got"):
            Fact("{} is in", "Rome", "Italy", joined_by=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prompt", "target", "chosen", "told"),
    [
        ("The capital of Italy is", "Rome", "auto", None),
        ("The capital of Italy is", "Rome", "nothing", None),
        ("The capital of Italy is ", "Rome", "auto", "ends in a blank"),
        ("The capital of Italy is  ", "Rome", "auto", "ends in 2 blanks"),
        ("The capital of Italy is ", "Rome", "blank", "ends in a blank"),
        ("The capital of Italy is\u00a0", "Rome", "auto", "ends in a blank"),
        ("法国的首都是 ", "罗马", "auto", "ends in a blank"),
        ("法国的首都是\u3000", "罗马", "auto", "ends in a blank"),
        ("Rome\tis in\t", "Italy", "auto", None),
        ("Where is it?\n", "Rome", "auto", None),
        ("Where is it? \n", "Rome", "auto", None),
    ],
)
def test_blanks_at_a_prompts_end_are_told_where_they_change_tokens(
    model: EditableModel, prompt: str, target: str, chosen: str, told: str | None
) -> None:
    said = model.blanks_told(prompt, target, chosen)
    as_typed = (*model.tokens(prompt).ids, *model.target_ids(target, prompt, chosen))
    bare = prompt.rstrip(" \u00a0\u3000")
    usual = (*model.tokens(bare).ids, *model.target_ids(target, bare))
    assert bool(said) == (told is not None) == (prompt != bare and as_typed != usual)
    assert told is None or told in said
    (found,) = complete(model, [Watched(prompt, "rewrite", target, None, chosen)])
    assert found.notice == said


# --- lengths ---

LONG = "so very " * 200


@pytest.mark.parametrize(
    ("changes", "which"),
    [
        ({"prompt": "{} " + "x y " * 70}, "prompt and object may be at most 128 tokens for tiny-gpt2, got"),
        ({"target_new": "old " * 24, "prompt": "{} " + "x y " * 60}, "prompt and object may be at most 128 tokens"),
        ({"paraphrase_prompts": ("Rome is", LONG)}, "paraphrase prompt 2 and object may be at most 256 tokens"),
        ({"neighborhood_prompts": (LONG,)}, "neighborhood prompt 1 and object may be at most 256 tokens"),
        ({"generation_prompts": (LONG,)}, "generation prompt 1 may be at most 256 tokens"),
        (
            {"neighborhood_prompts": ("x y" * 82,)},
            "neighborhood prompt 1 behind the edited statement and object may be",
        ),
        ({"follow_ups": (FollowUp("alias", LONG, "x"),)}, "follow-up 1 and object may be at most 256 tokens"),
        ({"follow_ups": (FollowUp("alias", "It is", LONG),)}, "follow-up 1 and object may be at most 256 tokens"),
        ({"follow_ups": (FollowUp("alias", "It is", "x", LONG),)}, "follow-up 1 and object may be at most 256 tokens"),
        (
            {"follow_ups": (FollowUp("reverse", "old " * 50, "x"),), "target_true": "x y " * 20},
            "follow-up 1, unedited, may be at most 256 tokens",
        ),
    ],
)
def test_every_prompt_of_a_fact_is_measured_in_tokens(
    changes: dict[str, object], which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("editlab.core.facts.MAX_PROMPT_CHARACTERS", 5_000)
    fields = {"prompt": "{} is", "subject": "Rome", "target_new": "old", "target_true": "new"} | changes
    with pytest.raises(ValueError, match=re.escape(which)) as error:
        tiny_model("gpt2").check(Fact(**fields))
    assert re.search(r"got \d+: '.*'$", str(error.value))


def test_a_watched_prompt_that_is_too_long_is_a_sentence() -> None:
    model = tiny_model("gpt2")
    with pytest.raises(ValueError, match=r"at most 128 tokens for tiny-gpt2, got \d+: 'x y"):
        own_prompts(model, ["Rome is", "x y " * 100])


def test_a_prompt_near_the_models_length_gets_a_shorter_continuation() -> None:
    model = model_of("byte-level", n_positions=24)
    row = model.tokens("The capital of Italy is Rome, and the mother tongue of Danielle Darrieux is French").ids
    prompts = [model.continuation((), row[:n]) for n in (24, 23, 20, 2)]
    assert [len(model.tokens(prompt).ids) for prompt in prompts] == [24, 23, 20, 2]
    said = complete(model, [Watched(prompt, "own") for prompt in prompts])
    assert said[0].completion == ""
    for completion, w in zip(said, prompts, strict=True):
        assert len(model.tokens(w).ids) < 24 or not completion.completion
    with pytest.raises(ValueError, match="1 to 24 tokens for tiny, byte-level, got 25"):
        model.batch([(5,) * 25])


def test_a_continuation_has_room_for_the_whole_object(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gpt2")
    asked: list[list[int]] = []
    monkeypatch.setattr(
        "editlab.model.reading.generate", lambda _model, rows, n, **_: asked.append(n) or [(5,)] * len(rows)
    )
    long = "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch"
    n = len(model.target_ids(long))
    assert n > COMPLETION_TOKENS
    complete(model, [Watched("It is in", "rewrite", "Wales", long), Watched("It is in", "own")])
    assert asked[0][0] > n
    assert asked[0][1] == COMPLETION_TOKENS


# --- tokens without an embedding ---


@pytest.fixture
def padded() -> Iterator[EditableModel]:
    """A model whose tokenizer has a pad token that is not in its embedding."""
    model = tiny_model("llama")
    model.tokenizer.add_special_tokens({"pad_token": AddedToken("<pad>", special=True)})
    assert model.tokenizer.pad_token_id >= model.n_vocabulary
    return model


def test_a_pad_token_without_an_embedding_is_never_given_to_the_model(padded: EditableModel) -> None:
    plain = tiny_model("llama")
    watched = [Watched("Rome is", "own", "old"), Watched("The Eiffel Tower is located in the city of", "own", "Rome")]
    assert complete(padded, watched) == complete(plain, watched)
    plan = ContextPlan(groups=((2, 6),), starters=("The",))
    assert sample_contexts(padded, plan, 3) == sample_contexts(plain, plan, 3)
    with pytest.raises(ValueError, match="no embedding for the token '<pad>'"):
        padded.tokens("Rome <pad> is")
    with pytest.raises(ValueError, match="no embedding for the token '<pad>'"):
        padded.check(Fact("{} is", "Rome", "<pad>"))
    with pytest.raises(ValueError, match="no embedding for the token '<pad>'"):
        padded.batch([(5, padded.tokenizer.pad_token_id)])
    with torch.no_grad():
        assert padded.hidden(padded.batch([(5, 6, 7), (5,)])).isfinite().all()
