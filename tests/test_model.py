"""EditableModel: orientation, tokens, half precision; one place that knows each architecture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from editlab.core.facts import Fact
from editlab.editing.editor import Editor
from editlab.model.deltas import LowRank
from editlab.model.loading import load, load_folder
from tests.conftest import GOLDEN, tiny_model
from tests.plain import output_of


def test_weight_maps_keys_to_the_mlps_output(editor: Editor) -> None:
    """Whatever the architecture stores, output = W k + b with W (d_out, d_in)."""
    model = editor.model
    seen = []
    batch = model.batch([model.tokens("The Eiffel Tower is in Paris").ids])
    with model.keys([2]) as keys, output_of(model, 2, "mlp", lambda out: seen.append(out) or out), torch.no_grad():
        model.hidden(batch)
    bias = model.projection(2).bias
    expected = keys[2] @ model.weight(2).T + (0 if bias is None else bias)
    assert torch.allclose(seen[0], expected, atol=1e-5)


def test_padding_changes_nothing(editor: Editor) -> None:
    model = editor.model
    rows = [model.tokens(text).ids for text in ("Rome", "The Eiffel Tower is located in the city of")]
    with torch.no_grad():
        together = model.hidden(model.batch(rows))
        for row, padded in zip(rows, together, strict=True):
            assert torch.allclose(model.hidden(model.batch([row]))[0], padded[: len(row)], atol=1e-4)


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("The mother tongue of Danielle Darrieux is", "Danielle Darrieux"),
        ("Zürich is in", "Zürich"),
        ("日本の首都は", "日本"),
    ],
)
def test_the_subjects_last_token_is_found_by_character(text: str, subject: str) -> None:
    model = tiny_model("gpt2")
    tokens = model.tokens(text)
    position = tokens.position_of(text.index(subject) + len(subject) - 1)
    assert model.tokenizer.decode(tokens.ids[: position + 1]).startswith(text[: text.index(subject)])
    assert subject in model.tokenizer.decode(tokens.ids[: position + 1])
    assert subject not in model.tokenizer.decode(tokens.ids[:position])


def test_half_precision_keeps_edited_layers_in_float32() -> None:
    model = load_folder(GOLDEN, dtype=torch.bfloat16)
    batch = model.batch([model.tokens("The Eiffel Tower").ids])
    torch.manual_seed(0)
    delta = LowRank(torch.randn(48, 1), torch.randn(192, 1))
    with torch.no_grad():
        before = model.hidden(batch)
        model.write([{2: delta}])
        assert model.weight(2).dtype == torch.float32
        assert model.weight(1).dtype == torch.bfloat16
        assert not torch.equal(model.hidden(batch), before)
        model.write([])
        assert model.weight(2).dtype == torch.bfloat16
        assert torch.equal(model.hidden(batch), before)


def test_a_layer_or_family_that_is_not_there_is_a_sentence() -> None:
    model = tiny_model("gpt2")
    with pytest.raises(ValueError, match="layer must be between 0 and 4, got 5"):
        model.weight(5)
    with pytest.raises(ValueError, match="dtype must be one of"):
        load("smollm2-135m", dtype="int8")
    with pytest.raises(ValueError, match="device must be"):
        load("smollm2-135m", device="toaster")
    with pytest.raises(ValueError, match="device must be 'auto', 'cpu', 'cuda'"):
        load("smollm2-135m", device="mps")
    with pytest.raises(ValueError, match=r"no config\.json"):
        load_folder(GOLDEN.parent)


@pytest.mark.parametrize("name", ["./no-such", "../a/b", "/no/such/folder", "~/no-such", "models/no/such", "no-such/"])
def test_a_path_that_does_not_exist_is_no_folder(name: str) -> None:
    with pytest.raises(ValueError, match=r"^there is no folder .*[a-z]$"):
        load(name)


def test_what_may_be_a_folder_or_an_id_is_told_as_both() -> None:
    with pytest.raises(ValueError, match=r"^there is no folder models/no-such, and models/no-such is not .* --yes"):
        load("models/no-such")


def test_a_file_is_no_folder() -> None:
    with pytest.raises(ValueError, match="is a file, not a folder"):
        load(str(GOLDEN / "config.json"))


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "fp8"])
def test_a_quantised_model_is_refused_before_its_weights_are_read(tmp_path: Path, method: str) -> None:
    config = json.loads((GOLDEN / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": method}}))
    with pytest.raises(ValueError, match=rf"is quantised \({method}\), and an edit needs .* load the model"):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"model_type": "mamba"}', r"is of the family 'mamba'; editable are falcon, gemma"),
        ('{"model_type": ["gpt2"]}', r"is of the family \['gpt2'\]"),
        ('{"model_type": "gpt2", "quantization_config": "gptq"}', r"is quantised \(an unknown method\)"),
        ("[]", "names no model_type in its config.json"),
        ("{", "could not be loaded"),
        ('{"model_type": "gpt2"}', "has no tokenizer"),
    ],
)
def test_a_folder_of_something_else_gets_a_sentence_by_its_config_alone(
    tmp_path: Path, text: str, sentence: str
) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        load_folder(tmp_path)


def test_facts_are_checked_against_the_vocabulary() -> None:
    model = tiny_model("gpt2")
    model.check(Fact("{} is", "Rome", "old"))
    with pytest.raises(ValueError, match="at most 128 tokens"):
        model.check(Fact("{} " + "x y " * 70, "Rome", "old"))


def test_fingerprints_tell_models_apart_and_do_not_see_edits(editor: Editor, fact: Fact) -> None:
    prints = {tiny_model(family).fingerprint() for family in ("gpt2", "llama", "gptj")}
    assert len(prints) == 3
    edit, _, _ = editor.compute([fact], editor.method("rome"))
    editor.model.write([edit])
    assert editor.model.fingerprint() in prints
