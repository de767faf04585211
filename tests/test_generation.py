"""The one generation loop, against a whole forward at every token of every row alone; and its samplers' shares."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import pytest
import torch

from editlab.core.facts import Fact
from editlab.measures.generation import sampled_texts
from editlab.model import generation, reading
from editlab.model.generation import Choose, Nucleus, Rows, TopK, TopKRace, generate, greedy, uniform
from editlab.model.model import EditableModel
from editlab.model.reading import Watched, complete, watched_of
from tests.conftest import CONTEXTS, FAMILIES, tiny_editor, tiny_model

TEXTS = ("I", "The Eiffel Tower is located in the city of", "Rome is", "Once upon a time there was a king who had")


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> EditableModel:
    return tiny_model(request.param)


@pytest.fixture
def rows(model: EditableModel) -> list[tuple[int, ...]]:
    return [model.tokens(text).ids for text in TEXTS]


def plainly(
    model: EditableModel,
    row: Sequence[int],
    n_tokens: int,
    choose: Choose = greedy,
    index: int = 0,
    ends: Collection[int] = (),
    banned: Sequence[int] = (),
) -> tuple[int, ...]:
    """One row, token by token, each from a whole forward without cache or padding."""
    ids = list(row)
    for step in range(n_tokens):
        with torch.no_grad():
            logits = model.hf(torch.tensor([ids])).logits[:, -1].float()
        logits[:, list(banned)] = -torch.inf
        token = int(choose(logits, [index], step))
        if token in ends:
            break
        ids.append(token)
    return tuple(ids[len(row) :])


def choosers(n_rows: int, n_steps: int) -> dict[str, Choose]:
    draws = torch.stack([uniform(f"row {i}", n_steps) for i in range(n_rows)])
    return {
        "greedy": greedy,
        "top-k": TopK(4, draws),
        "nucleus": Nucleus(0.8, draws),
        "race": TopKRace(4, n_rows, n_steps, torch.Generator().manual_seed(5)),
    }


@pytest.mark.parametrize("name", ["greedy", "top-k", "nucleus", "race"])
@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_rows_of_any_length_go_on_as_each_alone(
    model: EditableModel, rows: list[tuple[int, ...]], name: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "rows_at_once", lambda *_: at_once)
    limits = [9, 3, 0, 12]
    choose = choosers(len(rows), max(limits))[name]
    banned = [plainly(model, rows[0], 1)[0]]
    expected = [plainly(model, row, n, choose, i) for i, (row, n) in enumerate(zip(rows, limits, strict=True))]
    assert generate(model, rows, limits, choose) == expected
    without = [plainly(model, row, 6, choose, i, banned=banned) for i, row in enumerate(rows)]
    assert generate(model, rows, 6, choose, banned=[*banned, model.n_vocabulary + 7]) == without
    assert not set(banned) & {token for made in without for token in made}


def test_a_row_stops_at_the_end_of_the_text_and_the_others_go_on(
    model: EditableModel, rows: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = generate(model, rows, 8)
    end = whole[1][2]
    monkeypatch.setattr(model.hf.generation_config, "eos_token_id", [end])
    expected = [plainly(model, row, 8, ends=model.end_ids) for row in rows]
    assert len(expected[1]) <= 2
    assert generate(model, rows, 8, to_the_end=True) == expected
    assert generate(model, rows, 8) == whole


def test_a_row_ends_with_the_token_that_completes_its_text(model: EditableModel, rows: list[tuple[int, ...]]) -> None:
    whole = generate(model, rows, 8)
    stop = model.token_text(whole[0][3])
    for made, row in zip(generate(model, rows, 8, until=lambda text: stop in text), whole, strict=True):
        said = [stop in model.continuation((), row[: n + 1]) for n in range(len(row))]
        assert made == (row[: said.index(True) + 1] if any(said) else row)


def test_rows_that_ended_are_not_run_any_further(
    model: EditableModel, rows: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run: list[int] = []
    real = Rows.add
    monkeypatch.setattr(Rows, "add", lambda self, tokens: (run.append(len(tokens)), real(self, tokens))[1])
    generate(model, rows, [1, 2, 2, 5])
    assert run == [3, 1, 1, 1]


def test_the_logits_alone_decide(model: EditableModel, rows: list[tuple[int, ...]]) -> None:
    """Whatever the model's generation_config says of how to generate."""
    before = generate(model, rows, 8)
    said = complete(model, [Watched(text, "own") for text in TEXTS])
    config = model.hf.generation_config
    wishes = {
        "do_sample": True,
        "temperature": 9.0,
        "repetition_penalty": 50.0,
        "no_repeat_ngram_size": 1,
        "suppress_tokens": list({row[0] for row in before}),
        "max_length": 3,
        "num_beams": 3,
        "min_new_tokens": 50,
    }
    kept = {name: getattr(config, name) for name in wishes}
    try:
        config.update(**wishes)
        assert generate(model, rows, 8) == before
        assert complete(model, [Watched(text, "own") for text in TEXTS]) == said
    finally:
        config.update(**kept)


def test_no_row_goes_beyond_the_models_length(model: EditableModel) -> None:
    longest = model.max_tokens
    row = tuple(5 + i % 50 for i in range(longest))
    rows = [row, row[: longest - 1], row[: longest - 4], row[:3]]
    made = generate(model, rows, 20)
    assert [len(ids) for ids in made] == [0, 1, 4, 20]
    assert made[2] == plainly(model, rows[2], 4)
    with pytest.raises(ValueError, match=f"1 to {longest} tokens"):
        generate(model, [(*row, 5)], 1)
    with pytest.raises(ValueError, match=f"1 to {longest} tokens"):
        generate(model, [()], 1)


def test_a_long_prompt_beside_a_short_one_stays_within_the_models_length() -> None:
    model = tiny_model("gpt2")
    long = "word " * 90
    assert 156 < len(model.tokens(long).ids) < 256
    texts = sampled_texts(model, ["Rome is", long], 150)
    assert texts[1] == long
    assert texts[0].startswith("Rome is")


def shares_of(choose: type[TopK] | type[Nucleus], setting: float, logits: torch.Tensor, n: int) -> torch.Tensor:
    draws = torch.rand(n, 1, generator=torch.Generator().manual_seed(0))
    tokens = choose(setting, draws)(logits.expand(n, -1), range(n), 0)  # type: ignore[arg-type]
    return torch.bincount(tokens, minlength=logits.shape[0]) / n


def test_tokens_are_drawn_as_often_as_their_shares_say() -> None:
    logits, n = torch.tensor([0.1, 2.0, 1.5, -1.0, 0.9]), 40_000
    p = logits.softmax(0)
    best = torch.tensor([0.0, p[1], p[2], 0.0, p[4]])
    assert torch.allclose(shares_of(TopK, 3, logits, n), best / best.sum(), atol=0.01)
    assert torch.allclose(shares_of(TopK, 50, logits, n), p, atol=0.01)  # more than there are tokens
    # 0.47 and 0.28 are less than 0.8, with 0.16 they are more
    assert torch.allclose(shares_of(Nucleus, 0.8, logits, n), best / best.sum(), atol=0.01)
    assert shares_of(Nucleus, 0.1, logits, n)[1] == 1.0
    race = TopKRace(3, n, 1, torch.Generator().manual_seed(1))(logits.expand(n, -1), range(n), 0)
    assert torch.allclose(torch.bincount(race, minlength=5) / n, best / best.sum(), atol=0.01)


def test_a_race_is_what_torchs_multinomial_draws_from_the_same_seed() -> None:
    logits = torch.randn(6, 7, 50, generator=torch.Generator().manual_seed(2))  # (steps, rows, vocabulary)
    race = TopKRace(5, 7, 6, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    for step in range(6):
        best = logits[step].log_softmax(1).topk(5)
        drawn = torch.multinomial(best.values.softmax(1), 1, generator=generator)
        assert torch.equal(race(logits[step], range(7), step), best.indices.gather(1, drawn)[:, 0])


def test_many_prompts_are_read_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred facts with their paraphrases and neighbours: no forward of all rows, and the same numbers."""
    model = tiny_model("gpt2")
    facts = [
        Fact("{} is in", f"Town {i}", "Rome", "Paris", (f"Where is Town {i}? In",) * 2, (f"Village {i} is in",) * 3)
        for i in range(100)
    ]
    watched = [w for fact in facts for w in watched_of(fact)]
    assert len(watched) == 600
    sizes: list[int] = []
    real = EditableModel.hidden
    monkeypatch.setattr(
        EditableModel, "hidden", lambda self, batch: (sizes.append(batch.input_ids.numel()), real(self, batch))[1]
    )
    monkeypatch.setattr(generation, "rows_at_once", lambda *_: 64)
    together = complete(model, watched, 2)
    assert max(sizes) <= reading.TOKENS_AT_ONCE
    for number in (0, 301, 599):
        (alone,) = complete(model, [watched[number]], 2)
        assert alone.completion == together[number].completion
        assert alone.p_new == pytest.approx(together[number].p_new, rel=1e-4)
        assert [t.token for t in alone.top] == [t.token for t in together[number].top]


def test_how_many_rows_run_together_is_bounded_by_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from editlab.model import batching

    model = tiny_model("gpt2")
    assert batching.rows_at_once(model, 10**9) == 1
    many = batching.rows_at_once(model, 32)
    assert 1 < many <= batching.GENERATED_AT_ONCE // 32
    monkeypatch.setattr(batching, "free_bytes", lambda _device: 2**20)
    assert 1 <= batching.rows_at_once(model, 32) < many


def test_many_facts_are_run_a_few_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred facts by MEMIT make no forward of all their rows, and the same edit as in larger passes."""
    editor = tiny_editor("gpt2")
    method = replace(editor.methods["memit"], steps=2)
    facts = [Fact("{} plays the", f"Player {number} of the band", "piano", "guitar") for number in range(100)]
    whole, _, _ = editor.compute(facts, method)
    rows: list[tuple[int, int]] = []
    real = EditableModel.batch
    monkeypatch.setattr(
        EditableModel, "batch", lambda self, some: (rows.append((len(some), max(map(len, some)))), real(self, some))[1]
    )
    monkeypatch.setattr("editlab.methods._value.WHOLE_TOKENS_AT_ONCE", 256)
    monkeypatch.setattr("editlab.methods._keys.ROWS_AT_ONCE", 16)
    parts, _, _ = editor.compute(facts, method)
    assert sum(n for n, _ in rows) >= 100 * len(CONTEXTS) * 2  # in the searches, and on the way through the layers
    assert all(n <= 16 or n * length <= 256 for n, length in rows)
    for layer, delta in whole.items():
        assert torch.allclose(parts[layer].dense(), delta.dense(), rtol=1e-3, atol=1e-5 * float(delta.norm()))
