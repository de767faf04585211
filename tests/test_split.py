"""A model over several devices: every tensor of an edit is on its layer's device, and edits are those of one device."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, infer_auto_device_map, init_empty_weights
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, GPTJConfig, LlamaConfig, PretrainedConfig

from editlab.core.facts import Fact
from editlab.editing.editor import Editor
from editlab.editing.moments import SecondMoments
from editlab.methods._history import Earlier
from editlab.methods._value import SearchMethod
from editlab.model.deltas import Edit
from editlab.model.families import FAMILIES
from editlab.model.loading import SPLIT, _check_whole, check_place, load_folder
from editlab.session.session import Session
from tests.conftest import CONTEXTS, GOLDEN, tiny_editor, tiny_model
from tests.split import FIRST, SECOND, TwoDevices, split

METHODS = ("memit", "rome", "encore", "alphaedit", "ft-l")


def quick(editor: Editor) -> Editor:
    """The editor with short searches; ENCORE's stops early and scales its values."""
    for name, method in editor.methods.items():
        if isinstance(method, SearchMethod):
            editor.methods[name] = replace(method, steps=2)
    editor.methods["encore"] = replace(editor.methods["encore"], stop_after=1, anchored=True, anchor_norm=3.0)
    return editor


def edits_of(editor: Editor, facts: list[Fact]) -> list[Edit]:
    """One edit by each method upon those before it, the first of all facts together; all of them are written."""
    made: list[Earlier] = []
    for number, name in enumerate(METHODS):
        some = [facts[number % len(facts)]] if number else facts
        edit, _, _ = editor.compute(some, editor.method(name, {}), earlier=made)
        made.append(Earlier(tuple(some), edit))
        editor.model.write([each.edit for each in made])
    return [each.edit for each in made]


def split_editor(like: Editor) -> Editor:
    """An editor of the same tiny model, split, with the same methods and second moments."""
    model = split(tiny_model(like.model.kind))
    editor = Editor(model, moments=SecondMoments(like.moments([]).matrices, {}), contexts=CONTEXTS)
    editor.methods.update(like.methods)
    return editor


@pytest.mark.parametrize("family", ["gpt2", "llama", "gptj"])
def test_edits_are_on_the_devices_of_their_layers_and_equal_to_those_of_a_whole_model(
    family: str, facts: list[Fact]
) -> None:
    whole = quick(tiny_editor(family))
    expected = edits_of(whole, facts)
    with TwoDevices() as devices:
        editor = split_editor(whole)
        model, moments = editor.model, editor.moments([])
        places = [FIRST, FIRST, SECOND, SECOND, SECOND]
        assert [model.device_of(layer) for layer in range(5)] == places
        unedited = [model.weight(layer).clone() for layer in range(5)]
        found = edits_of(editor, facts)
        for ours, theirs in zip(found, expected, strict=True):
            for layer, delta in ours.items():
                assert {devices.place(part) for part in (delta.left, delta.right, delta.keys)} == {places[layer]}
                torch.testing.assert_close(delta.dense().to(FIRST), theirs[layer].dense(), rtol=1e-3, atol=1e-5)
        factors = {layer: devices.place(factor) for (layer, *_), factor in moments._factors.items()}
        assert factors == {layer: places[layer] for layer in (1, 2, 3)}
        assert not all(map(torch.equal, unedited, map(model.weight, range(5))))
        model.write([])
        assert all(map(torch.equal, unedited, map(model.weight, range(5))))


def test_what_a_session_shows_of_a_split_model_is_that_of_a_whole_one(fact: Fact) -> None:
    def shown(editor: Editor) -> tuple[Session, Any]:
        session = Session(editor)
        session.edit(fact, "memit")
        seen = (
            session.measure(("counterfact", "preservation")).measurement,
            session.trace(fact, kind="mlp", window=2),
            session.lens(fact.text),
            session.sweep(fact, "rome", {"steps": 2}),
        )
        return session, [record.to_json() for record in seen if record]

    whole = quick(tiny_editor("gpt2"))
    _, expected = shown(whole)
    with TwoDevices():
        session, found = shown(split_editor(whole))
        model = session.model
        written = [model.weight(layer).clone() for layer in range(5)]
        model.write([])
        again = Session(session.editor)  # as from a file, whose deltas are all on one device
        again.restore([replace(e, edit={n: delta.to(FIRST) for n, delta in e.edit.items()}) for e in session.log])
        again.put_in_force()
        assert all(map(torch.equal, written, map(model.weight, range(5))))
    assert tree_leaves(found) == [
        pytest.approx(x, 1e-3, 1e-5) if isinstance(x, float) else x for x in tree_leaves(expected)
    ]


def test_a_model_that_cannot_be_split_says_so() -> None:
    with pytest.raises(
        ValueError, match="a model split over GPUs runs in float32, bfloat16 or float16, not in float32-p"
    ):
        check_place(SPLIT, "float32-packed")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device 'split' was asked for, but this torch sees no CUDA device"):
            check_place(SPLIT, "float32")
    small = tiny_model("gptj").hf
    with pytest.raises(ValueError, match="a-model does not fit on the GPUs here: 55 of its 55 weights would stay on"):
        _check_whole(cpu_offload(small, torch.device("cpu")), "a-model")
    assert load_folder(GOLDEN, SPLIT).fingerprint() == tiny_model("gpt2").fingerprint()  # on what is there


@pytest.mark.parametrize(
    "config",
    [GPTJConfig(), LlamaConfig(intermediate_size=11008)],
    ids=["GPT-J-6B", "Llama-2-7B"],
)
def test_no_block_is_divided(config: PretrainedConfig) -> None:
    """Two GPUs of 8 GB, as accelerate fills them, hold the models of the papers in bfloat16, block by block."""
    with init_empty_weights():
        hf = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    places = infer_auto_device_map(hf, {0: "8GB", 1: "8GB"}, hf._no_split_modules)
    blocks = FAMILIES[config.model_type].blocks
    assert {places[f"{blocks}.{layer}"] for layer in range(config.num_hidden_layers)} == {0, 1}
    assert set(places.values()) == {0, 1}
