"""The fast path is the plain one: the same losses at every step and the same ΔW, whatever fact, contexts and model."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from editlab.core.facts import Fact
from editlab.core.progress import Progress, quiet
from editlab.core.records import Trace
from editlab.editing.editor import Editor
from editlab.editing.moments import SecondMoments
from editlab.methods import _keys, _value
from editlab.methods._rows import rows_of
from editlab.methods._scene import FactRows
from editlab.methods._value import Value
from editlab.model.fast.blocks import Past, Suffixes, embed, run
from editlab.model.fast.repeated import can_repeat
from editlab.model.model import EditableModel
from tests import plain
from tests.conftest import CONTEXTS

NAMES = ("rome", "r-rome", "memit", "emmet")
FACTS = {
    "subject first": Fact("{} originated in", "OK Go", "Manila", "Chicago"),
    "subject first, one token, at position 0": Fact("{} is a city in", "A", "France", "Texas"),
    "subject in the middle": Fact("The mother tongue of {} is", "Danielle Darrieux", "English", "French"),
    "subject last": Fact("The new president was called {}", "Toko Yasuda", "and she played the piano", "guitar"),
    "object of many tokens": Fact("{} plays the", "Toko Yasuda", "harpsichord in Vladivostok", "guitar"),
}
# Of different lengths; without a blank before the prompt, and with letters after it, its last tokens differ.
UNEVEN = ("{}", "x{}", "I heard. {}", "Because it rained all day and all of the night, nobody went out. {}", "{}ly")


def errors(editor: Editor, facts: Sequence[Fact], name: str, contexts: Sequence[str] = CONTEXTS) -> list[float]:
    """Relative errors of ΔW per layer, after comparing losses."""
    method = editor.method(name)
    moments = editor.moments(method.edited_layers)
    fast, trace = method(editor.model, facts, moments=moments, contexts=contexts, report=quiet)
    slow, values = plain.edit(editor.model, facts, method, moments, contexts)
    check_losses(trace, values)
    assert fast.keys() == slow.keys()
    found = []
    for layer, delta in fast.items():
        theirs = slow[layer].left.double() @ slow[layer].right.double().T
        ours = delta.left.double() @ delta.right.double().T
        found.append(float((ours - theirs).norm() / theirs.norm()))
    return found


def moments_everywhere(editor: Editor) -> SecondMoments:
    """Layer 2's second moment for every layer: any will do where both sides take the same."""
    return SecondMoments(dict.fromkeys(range(editor.model.n_layers), editor.moments([2]).matrices[2]), {})


def check_losses(trace: Trace, values: Sequence[plain.Value]) -> None:
    for ours, theirs in zip(trace.values, values, strict=True):
        mine = torch.tensor([ours.loss, ours.nll, ours.kl, ours.decay]).T
        assert mine.shape == (len(theirs.losses), 4)
        assert torch.allclose(mine, torch.tensor(theirs.losses), rtol=0, atol=1e-4)


@pytest.mark.parametrize("contexts", [CONTEXTS, UNEVEN, ("{}",)], ids=["contexts", "uneven contexts", "bare"])
@pytest.mark.parametrize("name", NAMES)
def test_fast_is_plain(editor: Editor, name: str, contexts: Sequence[str]) -> None:
    found = [error for fact in FACTS.values() for error in errors(editor, [fact], name, contexts)]
    assert statistics.median(found) < 1e-4
    assert max(found) < 1e-2


@pytest.mark.parametrize("name", ["memit", "emmet"])
def test_fast_is_plain_for_batches(editor: Editor, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_keys, "ROWS_AT_ONCE", 2 * len(CONTEXTS))  # several readings for five facts
    facts = list(FACTS.values())
    found = errors(editor, facts, name)
    assert statistics.median(found) < 1e-4
    assert max(found) < 1e-2
    monkeypatch.setattr(_keys, "KEPT_BYTES", 0)  # no memory to keep anything
    assert errors(editor, facts, name) == pytest.approx(found, abs=1e-5)


def test_values_found_in_one_pass_are_those_of_each_fact_alone(editor: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever their lengths, their objects' lengths, and when each of them stops."""
    method = editor.method("rome", {"steps": 12, "kl_weight": 0.0})
    facts = list(FACTS.values())

    def values_alone() -> list[Value]:
        return [next(method.values(editor.model, [fact], UNEVEN, quiet)) for fact in facts]

    losses = [loss for value in values_alone() for loss in value.trace.loss]
    monkeypatch.setattr(_value, "STOP_BELOW", statistics.median(losses))
    alone = values_alone()
    assert len({len(value.trace.loss) for value in alone}) > 2
    monkeypatch.setattr(_value, "TOKENS_AT_ONCE", {"cpu": 10**6})
    monkeypatch.setattr(_value, "PADDING_AT_MOST", 100.0)
    passes: list[int] = []
    search = _value._search

    def counting(model: EditableModel, asked: Sequence[Any], *rest: Any) -> Any:
        passes.append(len(asked))
        return search(model, asked, *rest)

    monkeypatch.setattr(_value, "_search", counting)
    together = list(method.values(editor.model, facts, UNEVEN, quiet))
    assert passes == [len(facts)]
    for ours, theirs in zip(together, alone, strict=True):
        assert ours.trace.loss == pytest.approx(theirs.trace.loss, abs=1e-4)
        assert torch.allclose(ours.target, theirs.target, atol=1e-3)
        assert torch.allclose(ours.keys, theirs.keys, atol=1e-5)
        assert ours.position == theirs.position


def test_a_pass_that_needs_too_much_memory_is_made_in_two(editor: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    method = editor.method("emmet", {"steps": 3})
    facts = list(FACTS.values())
    expected = [next(method.values(editor.model, [fact], CONTEXTS, quiet)).target for fact in facts]
    search = _value._search

    def short_of_memory(model: EditableModel, asked: Sequence[Any], *rest: Any) -> Any:
        if len(asked) > 1:
            raise torch.OutOfMemoryError("made up")
        return search(model, asked, *rest)

    monkeypatch.setattr(_value, "_search", short_of_memory)
    for found, target in zip(method.values(editor.model, facts, CONTEXTS, quiet), expected, strict=True):
        assert torch.allclose(found.target, target, atol=1e-4)


@pytest.mark.parametrize("room", [1, 3, 1000])
@pytest.mark.parametrize("n_facts", [0, 1, 2, 128, 129, 300])
def test_values_come_in_the_order_of_the_facts_and_progress_goes_on(
    gpt2_editor: Editor, n_facts: int, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of facts of different lengths and repeated ones, whatever memory has room for at once."""
    facts = [list(FACTS.values())[number * number % len(FACTS)] for number in range(n_facts)]
    made: list[FactRows] = []
    told: list[str] = []

    def rows_of_fact(*arguments: Any) -> FactRows:
        made.append(FactRows.of(*arguments))
        return made[-1]

    def search(_model: EditableModel, asked: Sequence[FactRows], *rest: Any) -> Sequence[FactRows]:
        if len(asked) > room:
            raise torch.OutOfMemoryError("made up")
        rest[3](Progress("searching"))
        return asked

    monkeypatch.setattr(_value, "FactRows", SimpleNamespace(of=rows_of_fact))
    monkeypatch.setattr(_value, "_search", search)
    monkeypatch.setattr(_value, "TOKENS_AT_ONCE", {"cpu": 10**6})
    values = gpt2_editor.method("emmet").values(gpt2_editor.model, facts, ("{}",), lambda p: told.append(p.stage))
    assert [id(value) for value in values] == [id(each) for each in made]
    assert len(made) == n_facts
    if n_facts > 1:
        first = [int(stage.removeprefix("searching of fact ").removesuffix(f" of {n_facts}")) for stage in told]
        assert first == sorted(set(first))
        assert first[0] == 1
        assert n_facts - first[-1] < room


@pytest.mark.parametrize("name", ["r-rome", "memit"])
def test_fast_is_plain_with_eager_attention(editor: Editor, name: str) -> None:
    before = editor.model.hf.config._attn_implementation
    editor.model.hf.set_attn_implementation("eager")
    try:
        found = [error for fact in FACTS.values() for error in errors(editor, [fact], name, UNEVEN)]
    finally:
        editor.model.hf.set_attn_implementation(before)
    assert statistics.median(found) < 1e-4
    assert max(found) < 1e-2


@pytest.mark.parametrize("layer", [0, 4])
def test_fast_is_plain_in_the_first_and_the_last_layer(editor: Editor, layer: int) -> None:
    method = editor.method("rome", {"layer": layer})
    moments = moments_everywhere(editor)
    fact = FACTS["subject in the middle"]
    fast, trace = method(editor.model, [fact], moments=moments, contexts=CONTEXTS, report=quiet)
    slow, values = plain.edit(editor.model, [fact], method, moments, CONTEXTS)
    check_losses(trace, values)
    assert float((fast[layer].dense() - slow[layer].dense()).norm()) < 1e-4 * slow[layer].norm()


def test_memit_may_skip_layers_and_edit_one(editor: Editor) -> None:
    moments = moments_everywhere(editor)
    for layers in ([0, 3], [2]):
        method = editor.method("memit", {"layers": layers})
        facts = [FACTS["subject in the middle"]]
        fast, _ = method(editor.model, facts, moments=moments, contexts=CONTEXTS, report=quiet)
        slow, _ = plain.edit(editor.model, facts, method, moments, CONTEXTS)
        for layer in layers:
            assert float((fast[layer].dense() - slow[layer].dense()).norm()) < 1e-4 * slow[layer].norm()


def test_fast_is_plain_after_edits(editor: Editor) -> None:
    """The model in force is read, not the base."""
    first, _, _ = editor.compute([FACTS["subject first"]], editor.method("memit"))
    editor.model.write([first])
    for name in NAMES:
        assert max(errors(editor, [FACTS["subject in the middle"]], name)) < 1e-3


def test_blocks_from_the_embedding_on_are_the_model(editor: Editor) -> None:
    model = editor.model
    batch = model.batch([model.tokens(text).ids for text in ("The weather in Rome is", "Because", TEXT)])
    with torch.no_grad():
        theirs = model.hf(**batch.inputs()).logits.log_softmax(-1)
        ours = model.log_probs(final_norm(model, run(model, range(model.n_layers), embed(model, batch.input_ids))))
    mask = batch.attention_mask.bool()
    assert torch.allclose(ours[mask], theirs[mask], atol=1e-5)


def test_suffixes_are_the_ends_of_whole_rows(editor: Editor) -> None:
    """Also where one begins at its first token, and another is only one token long."""
    model = editor.model
    ids = [model.tokens(text).ids for text in ("The weather in Rome is", "Because", TEXT)]
    starts = torch.tensor([0, len(ids[1]) - 1, 7])
    lengths = torch.tensor([len(row) - int(start) for row, start in zip(ids, starts, strict=True)])
    with torch.no_grad():
        hidden = run(model, range(2), embed(model, model.batch(ids).input_ids))
        whole = run(model, range(2, model.n_layers), hidden)
        suffixes = Suffixes(model, 2, hidden, starts, lengths)
        for _ in range(2):  # as often as wanted
            ends = suffixes.run(suffixes.hidden, torch.arange(len(suffixes.hidden)))
            expected = [row[start:][:length] for row, start, length in zip(whole, starts, lengths, strict=True)]
            assert torch.allclose(ends, torch.cat(expected), atol=1e-5)


def test_the_past_is_recorded_once_and_then_only_served() -> None:
    past = Past()
    first = torch.randn(2, 3, 4, 5)
    past.update(first, first, 1)
    past.recording = False
    for _ in range(2):
        keys, _ = past.update(torch.zeros(2, 3, 2, 5), torch.zeros(2, 3, 2, 5), 1)
        assert keys.shape == (2, 3, 6, 5)
        assert torch.equal(keys[:, :, :4], first)


def test_fast_runs_few_tokens(editor: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step runs only the layers above, and only from the subject's last token on."""
    method = editor.method("rome")
    fact = FACTS["subject in the middle"]
    tokens = [0] * editor.model.n_layers
    handles = [
        editor.model.projection(layer).register_forward_pre_hook(
            lambda _, inputs, layer=layer: tokens.__setitem__(layer, tokens[layer] + inputs[0].shape[:-1].numel())
        )
        for layer in range(editor.model.n_layers)
    ]
    try:
        method(editor.model, [fact], moments=editor.moments([2]), contexts=CONTEXTS, report=quiet)
    finally:
        for handle in handles:
            handle.remove()
    rows = rows_of(editor.model, fact, CONTEXTS)
    m = len(editor.model.target_ids(fact.target_new))
    whole = (len(rows) + 1) * (max(len(row.ids) for row in rows) + m - 1)
    before = (len(rows) + 1) * max(row.lookup for row in rows)
    longest = len(rows[0].ids) - rows[0].lookup + m - 1
    suffix, padding = len(rows) * longest + 1, longest - 1
    assert tokens[0] == tokens[1] == whole
    assert tokens[2] == whole + len(rows) + 1  # the outputs at the subject, read once
    read = len(rows) * m + 1
    if can_repeat(editor.model):
        assert tokens[3:] == [before + method.steps * suffix, before + method.steps * read]
    else:
        assert tokens[3] == tokens[4] == before + method.steps * (suffix + padding)


TEXT = "Danielle Darrieux was born in Bordeaux, and her mother tongue is French."


def final_norm(model: EditableModel, hidden: torch.Tensor) -> torch.Tensor:
    return model.hf.get_submodule(model.family.norm)(hidden)
