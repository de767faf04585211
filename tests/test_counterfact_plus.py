"""CounterFact+ against whole prompts, one at a time; rows that share beginnings against rows read one by one."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from editlab.core.facts import Fact
from editlab.core.progress import quiet
from editlab.editing.editor import Editor
from editlab.measures import State, StateCache, counterfact_plus
from editlab.measures.counterfact_plus import CounterFactPlusOfAll
from editlab.model.fast import trees
from editlab.model.model import EditableModel
from tests.test_says_it import an_edit, inputs_of

FACTS = (
    Fact("{} originated in", "OK Go", "Manila", "Chicago", (), ("Wilco is from", "The band Rush, of")),
    Fact("{} is spoken in", "Danish", "New York City", "Oslo", (), ("Norwegian is spoken in",)),
    Fact("{} plays the", "Toko Yasuda", "piano", None, (), ("never read",)),
)
TOLERANCE = 1e-4


@torch.no_grad()
def distribution(model: EditableModel, prompt: str) -> Tensor:
    return model.hf(torch.tensor([model.tokens(prompt).ids])).logits[0, -1].double().log_softmax(-1)


@torch.no_grad()
def mean_nll(model: EditableModel, prompt: str, target: str) -> float:
    ids, object_ids = model.tokens(prompt).ids, model.target_ids(target, prompt)
    log_probs = model.hf(torch.tensor([[*ids, *object_ids]])).logits[0].double().log_softmax(-1)
    return -sum(float(log_probs[len(ids) - 1 + i, token]) for i, token in enumerate(object_ids)) / len(object_ids)


def test_it_is_what_whole_prompts_give(editor: Editor) -> None:
    model = editor.model
    inputs = inputs_of(model, FACTS)
    found = CounterFactPlusOfAll()(inputs, quiet)
    assert found is not None
    assert (found.n_facts, found.of, found.plain.n, found.prefixed.n) == (2, 3, 3, 3)
    kl: dict[str, list[float]] = {"plain": [], "prefixed": []}
    right: dict[str, list[bool]] = {"plain": [], "prefixed": [], "base_plain": [], "base_prefixed": []}
    for fact in FACTS[:2]:
        for neighbour in fact.neighborhood_prompts:
            texts = {"plain": neighbour, "prefixed": f"{fact.text} {fact.target_new}. {neighbour}"}
            for which, text in texts.items():
                for name, state in (("base_", inputs.base), ("", inputs.now)):
                    state.put_in_force()
                    new, true = (mean_nll(model, text, target) for target in (fact.target_new, fact.target_true))
                    right[f"{name}{which}"].append(true < new)
                after = distribution(model, text)
                with model.unedited():
                    before = distribution(model, text)
                kl[which].append(float((before.exp() * (before - after)).sum()))
    for name, wins in right.items():
        assert getattr(found, name).success == sum(wins) / 3
    for name, nats in kl.items():
        assert getattr(found, name).divergence == pytest.approx(sum(nats) / 3, rel=1e-3, abs=TOLERANCE)
        assert sum(nats) > 0.01
    assert [reading.n for reading in found.readings()] == 4 * [3]


def test_the_unedited_model_is_read_once_for_all_states(gpt2_editor: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    model = gpt2_editor.model
    inputs = inputs_of(model, FACTS)
    later = type(inputs)(State(model, (an_edit(model, 1),), StateCache()), inputs.base, (), inputs.edited)
    fresh = type(inputs)(later.now, State(model, (), StateCache()), (), inputs.edited)
    CounterFactPlusOfAll()(inputs, quiet)
    states: list[bool] = []
    real = counterfact_plus.read
    monkeypatch.setattr(
        counterfact_plus, "read", lambda *rest: (states.append(model.lowest_edited < model.n_layers), real(*rest))[1]
    )
    found = CounterFactPlusOfAll()(later, quiet)
    assert states == [True]
    later.now.cache.pieces.clear()
    monkeypatch.setattr(counterfact_plus, "MOST_KEPT", 0)
    assert CounterFactPlusOfAll()(fresh, quiet) == found
    assert CounterFactPlusOfAll()(fresh, quiet) == found
    model.write([])


def test_the_unedited_model_has_not_moved(gpt2_editor: Editor) -> None:
    inputs = inputs_of(gpt2_editor.model, FACTS)
    unedited = type(inputs)(inputs.base, inputs.base, (), inputs.edited)
    found = CounterFactPlusOfAll()(unedited, quiet)
    assert found is not None
    assert found.plain.divergence == found.prefixed.divergence == 0.0
    assert (found.plain, found.prefixed) == (found.base_plain, found.base_prefixed)
    gpt2_editor.model.write([])


def test_facts_without_neighbours_have_none(gpt2_editor: Editor) -> None:
    assert CounterFactPlusOfAll()(inputs_of(gpt2_editor.model, FACTS[2:]), quiet) is None


ROWS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=9).map(tuple), min_size=1, max_size=12)


@given(ROWS, st.integers(4, 24))
def test_every_token_of_a_row_sees_its_own_row_only(rows: list[tuple[int, ...]], width: int) -> None:
    with mock.patch.object(trees, "TREE_TOKENS", width):
        found = trees._planted(rows)
    assert sorted(row for tree in found for row in tree.rows) == sorted(set(rows))
    for tree in found:
        assert len(tree.ids) <= max(width, max(map(len, rows)))
        seen = tree.seen(len(tree.ids) + 1)
        for row, places in tree.rows.items():
            assert tuple(tree.ids[place] for place in places) == row
            assert [tree.positions[place] for place in places] == list(range(len(row)))
            for i, place in enumerate(places):
                assert seen[place].nonzero()[:, 0].tolist() == sorted(places[: i + 1])
        assert len(tree.ids) == len({row[: i + 1] for row in tree.rows for i in range(len(row))})  # each token once


def test_rows_in_trees_are_read_as_one_by_one(editor: Editor) -> None:
    model = editor.model
    texts = ("OK Go", "OK Go is", "OK Go is from", "OK Go was", "A", "The band OK Go")
    rows = {model.tokens(text).ids: 2 if " " in text else 1 for text in texts}
    found: dict[tuple[int, ...], Tensor] = {}
    for some in trees.read_rows(model, rows):
        found |= some
    for row, n in rows.items():
        with torch.no_grad():
            whole = model.hidden(model.batch([row]))[0, -n:]
        assert torch.allclose(found[row], whole, atol=TOLERANCE)
