"""A fingerprint is of the whole model: what computes otherwise is called otherwise; what computes the same is not."""

from __future__ import annotations

import copy

import pytest
import torch
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from transformers import CONFIG_MAPPING, PreTrainedTokenizerFast

from editlab.model.deltas import LowRank
from editlab.model.families import FAMILIES, family_of
from editlab.model.fingerprint import _SETTINGS
from editlab.model.model import EditableModel
from tests.conftest import tiny_model


def again(model: EditableModel) -> EditableModel:
    """The same parts, asked as a model that was just loaded."""
    return EditableModel(model.hf, model.tokenizer, model.name)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gptj"])
def test_any_changed_parameter_changes_it(family: str) -> None:
    model = tiny_model(family)
    first = model.fingerprint()
    assert again(model).fingerprint() == tiny_model(family).fingerprint() == first
    found = {first}
    for _name, parameter in model.hf.named_parameters():
        kept = parameter.detach().clone()
        place = tuple(size - 1 for size in parameter.shape)
        parameter[place] = torch.nextafter(parameter[place], torch.tensor(torch.inf))  # by one last bit
        found.add(again(model).fingerprint())
        parameter.copy_(kept)
    assert len(found) == 1 + len(list(model.hf.named_parameters()))
    assert again(model).fingerprint() == first


def test_two_tensors_that_change_places_change_it() -> None:
    model = tiny_model("llama")
    first, attention = model.fingerprint(), model.hf.model.layers[0].self_attn
    attention.q_proj, attention.k_proj = attention.k_proj, attention.q_proj
    assert again(model).fingerprint() != first


def test_a_changed_tokenizer_changes_it_and_being_used_does_not() -> None:
    model = tiny_model("gpt2")
    first = model.fingerprint()
    model.tokenizer(["a longer text"], max_length=2, truncation=True)
    model.tokenizer.backend_tokenizer.enable_padding(length=9)
    assert again(model).fingerprint() == first
    other = copy.deepcopy(model.tokenizer)
    other.backend_tokenizer.add_tokens([AddedToken("Eiffel")])
    assert EditableModel(model.hf, other, model.name).fingerprint() != first
    lower = copy.deepcopy(model.tokenizer)
    lower.backend_tokenizer.normalizer = Lowercase()
    assert EditableModel(model.hf, lower, model.name).fingerprint() != first


@pytest.mark.parametrize("number", [0, 1, 2])
def test_any_renamed_token_changes_it(number: int) -> None:
    def named(words: list[str]) -> str:
        vocabulary = {word: place for place, word in enumerate(words)}
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(vocabulary, unk_token=None)))
        return EditableModel(model.hf, tokenizer, model.name).fingerprint()

    model, words = tiny_model("llama"), ["Paris", "Rome", "Oslo"]
    renamed = [*words[:number], "Lima", *words[number + 1 :]]
    assert named(words) == named(list(words)) != named(renamed)


@pytest.mark.parametrize(
    ("name", "value"), [("num_attention_heads", 2), ("rms_norm_eps", 1e-3), ("hidden_act", "gelu")]
)
def test_what_the_weights_do_not_say_changes_it(name: str, value: object) -> None:
    model = tiny_model("llama")
    first = model.fingerprint()
    setattr(model.hf.config, name, value)
    assert again(model).fingerprint() != first


# Settings that change no output: told by the tensors' shapes, of training or of generation, or turned into others.
NO_OUTPUT = {
    *("vocab_size", "hidden_size", "n_embd", "intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner"),
    *("attention_bias", "mlp_bias", "bias", "enable_bias", "layer_norm_elementwise_affine", "add_cross_attention"),
    "tie_word_embeddings",
    *("initializer_range", "init_std", "dropout", "attention_dropout", "hidden_dropout", "classifier_dropout"),
    *("resid_pdrop", "embd_pdrop", "attn_pdrop", "layerdrop", "use_cache", "pretraining_tp", "is_decoder"),
    *("pad_token_id", "bos_token_id", "eos_token_id", "reorder_and_upcast_attn", "max_window_layers"),
    *("no_rope_layer_interval", "original_max_position_embeddings"),
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_setting_of_a_family_is_hashed_or_changes_no_output(kind: str) -> None:
    made = CONFIG_MAPPING[kind]
    excluded = {setting for setting, *_ in family_of({"model_type": kind}, kind).excludes}
    hashed = {made.attribute_map.get(name, name) for name in _SETTINGS}
    declared = {name for name in made.__annotations__ if not name.startswith(("summary_", "base_model_"))}
    assert len(declared) > 10
    assert declared - hashed - excluded - NO_OUTPUT - {"model_type"} == set()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_does_not_see_edits(family: str, dtype: torch.dtype) -> None:
    whole = tiny_model(family)
    model = EditableModel(whole.hf.to(dtype), whole.tokenizer, whole.name)
    first = again(model).fingerprint()
    d_out, d_in = model.weight(2).shape
    model.hold([1])
    model.write([{2: LowRank(torch.ones(d_out, 1), torch.ones(d_in, 1))}])
    assert model.fingerprint() == first


def test_packed_weights_are_the_same_model() -> None:
    model = tiny_model("llama")
    model.pack()
    assert model.fingerprint() == tiny_model("llama").fingerprint()


# --- what earlier versions wrote ---

EARLIER = "bb8e9b5170d84a80"  # the tiny GPT-2, as the version before named it


def test_the_earlier_fingerprint_is_still_this_model() -> None:
    model = tiny_model("gpt2")
    assert model.is_named(EARLIER)
    assert model.is_named(model.fingerprint())
    assert not model.is_named("5f4dcc3b5aa765d6")
    assert not model.is_named("")
    assert not tiny_model("llama").is_named(EARLIER)
