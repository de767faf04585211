"""Every architecture in the table obeys the laws: on a tiny model of random weights, built from its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from editlab.core.facts import Fact
from editlab.editing.editor import Editor
from editlab.editing.moments import SecondMoments, compute, rows_of_texts
from editlab.model.families import FAMILIES
from editlab.model.fast.blocks import embed, logits, run
from editlab.model.loading import load_folder
from editlab.model.model import EditableModel
from editlab.session.session import Session
from tests.conftest import CONTEXTS, GOLDEN, TEXT

SIZES = {
    "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
    "max_position_embeddings": 256,
}  # fmt: skip
SHARED = {**SIZES, "num_key_value_heads": 2, "head_dim": 12}
CONFIGS: dict[str, dict[str, Any]] = {
    "falcon": {**SIZES, "alibi": False, "ffn_hidden_size": 96},
    "gemma": SHARED,
    "gemma2": {**SHARED, "query_pre_attn_scalar": 12, "sliding_window": 128},
    "gemma3_text": {**SHARED, "query_pre_attn_scalar": 12, "sliding_window": 128, "sliding_window_pattern": 2},
    "gpt2": {"n_embd": 48, "n_layer": 4, "n_head": 4, "n_positions": 256},
    "gpt_neox": SIZES,
    "gptj": {"n_embd": 48, "n_layer": 4, "n_head": 4, "n_positions": 256, "rotary_dim": 8},
    "llama": SHARED,
    "mistral": {**SHARED, "sliding_window": 128},
    "olmo2": SHARED,
    "opt": {**SIZES, "pad_token_id": 1, "ffn_dim": 96, "word_embed_proj_dim": 48},
    "phi3": {**SIZES, "num_key_value_heads": 2, "pad_token_id": 0},
    "qwen2": SHARED,
    "qwen3": SHARED,
    "smollm3": {**SHARED, "pad_token_id": 0, "no_rope_layers": [1, 0, 1, 0]},
}
FACT = Fact("{} originated in", "OK Go", "Manila", "Chicago")


ODD: list[tuple[str, dict[str, Any]]] = [
    ("falcon", {"bias": True, "multi_query": False}),
    ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    ("falcon", {"parallel_attn": False}),
    ("gemma3_text", {"layer_types": ["full_attention"] * 4, "final_logit_softcapping": 5.0}),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "tie_word_embeddings": False}),
    ("gpt_neox", {"use_parallel_residual": False, "rotary_pct": 1.0}),
    ("llama", {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1, "head_dim": 16}),
    ("opt", {"enable_bias": False, "layer_norm_elementwise_affine": False}),
    ("phi3", {"partial_rotary_factor": 0.5}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 40, "max_window_layers": 2}),
]
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 6, "long_factor": [2.0] * 6}


def tiny(kind: str, **settings: Any) -> EditableModel:
    """A model of four layers and random weights, of a family's configuration with these settings."""
    tokenizer = AutoTokenizer.from_pretrained(str(GOLDEN))
    sizes = {**CONFIGS[kind], "vocab_size": len(tokenizer), "initializer_range": 0.2, **settings}
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes)).float()
    return EditableModel(hf, tokenizer, f"tiny-{kind}")


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def editor(request: pytest.FixtureRequest) -> Editor:
    model = tiny(request.param)
    matrices, keys = compute(model, range(4), rows_of_texts(model, TEXT.split("\n\n")), 2_000)
    return Editor(model, moments=SecondMoments(matrices, {"name": "some text", "keys": keys}), contexts=CONTEXTS)


def test_blocks_run_one_by_one_are_the_model(editor: Editor) -> None:
    check_blocks(editor.model)


@torch.no_grad()
def check_blocks(model: EditableModel) -> None:
    ids = torch.randint(0, model.n_vocabulary, (2, 20), generator=torch.Generator().manual_seed(1))
    ours = logits(model, run(model, range(model.n_layers), embed(model, ids)))
    theirs = model.hf(input_ids=ids).logits
    assert float((ours - theirs).abs().max()) <= 2e-6 * float(theirs.abs().max()) + 2e-6


@pytest.mark.parametrize(("kind", "settings"), ODD)
def test_odd_settings_are_read_as_transformers_reads_them_and_searched_through(
    kind: str, settings: dict[str, Any]
) -> None:
    model = tiny(kind, **settings)
    check_blocks(model)
    matrices = {1: torch.eye(model.weight(1).shape[1], dtype=torch.float64)}
    editor = Editor(model, moments=SecondMoments(matrices, {"name": "none"}), contexts=CONTEXTS)
    _, trace, _ = editor.compute([FACT], editor.method("rome", {"layer": 1, "steps": 20}))
    p_new = trace.values[0].p_new
    assert p_new[-1] > p_new[0]


@torch.no_grad()
def test_a_row_reads_the_same_beside_a_longer_one_where_angles_depend_on_the_length() -> None:
    model = tiny("phi3", rope_parameters=LONGROPE, original_max_position_embeddings=32)
    assert model.max_tokens == 32
    short, long = list(range(5, 12)), list(range(5, 5 + model.max_tokens))
    alone, beside = (model.hidden(model.batch(rows))[0, : len(short)] for rows in ([short], [short, long]))
    assert torch.allclose(alone, beside, atol=1e-4)


def test_a_row_is_no_longer_than_a_window(editor: Editor) -> None:
    assert editor.model.max_tokens == CONFIGS[editor.model.kind].get("sliding_window", 256)


@torch.no_grad()
def test_keys_are_what_the_projection_reads_and_values_what_it_writes(editor: Editor) -> None:
    model = editor.model
    batch = model.batch([[5, 6, 7, 8]])
    seen: list[torch.Tensor] = []
    handle = model.projection(2).register_forward_hook(
        lambda _m, inputs, output: seen.extend((inputs[0], output.clone()))
    )
    model.hidden(batch)
    handle.remove()
    keys = model.keys_of(batch, [2])[2]
    assert keys.shape == (1, 4, model.weight(2).shape[1])
    assert torch.equal(keys.flatten(), seen[0].flatten())
    bias = getattr(model.projection(2), "bias", None)
    assert torch.allclose(keys @ model.weight(2).T + (0 if bias is None else bias), seen[1].view(1, 4, -1), atol=1e-5)


def test_an_edit_is_what_the_overlay_foretells_and_is_undone_to_the_last_bit(editor: Editor) -> None:
    model = editor.model
    before = [model.weight(layer).clone() for layer in range(model.n_layers)]
    text, target = FACT.text, FACT.target_new
    chosen = editor.method("rome", {"layer": 1, "steps": 20})
    edit, _, _ = editor.compute([FACT], chosen)
    batch = model.batch([model.tokens(text).ids])
    with torch.no_grad():
        plain = model.logits(model.hidden(batch))
        with model.overlaid(edit):
            laid = model.logits(model.hidden(batch))
        model.write([edit])
        written = model.logits(model.hidden(batch))
    scale = float(written.abs().max())
    assert float((laid - written).abs().max()) <= 1e-4 * scale
    wanted = model.target_ids(target, text)[0]
    gain = written.log_softmax(-1)[0, -1, wanted] - plain.log_softmax(-1)[0, -1, wanted]
    assert float(gain) > 0
    model.write([])
    assert all(torch.equal(model.weight(layer), was) for layer, was in enumerate(before))


def test_every_offered_method_edits_it_and_the_others_are_not_offered(editor: Editor) -> None:
    session = Session(editor)
    for name, method in editor.methods.items():
        known = method.__dataclass_fields__
        changes = {n: value for n, value in {"layer": 1, "layers": (1, 2), "steps": 4}.items() if n in known}
        step = session.edit(FACT, name, changes)
        assert all(size.norm > 0 for size in step.size.values())
        session.undo()
    assert "rome" in editor.methods
    if not FAMILIES[editor.model.kind].adds_mlp:
        assert "memit" not in editor.methods
        with pytest.raises(ValueError, match="MEMIT aims at a block’s output, and in tiny"):
            editor.method("memit")
    session.put_in_force()


@pytest.mark.parametrize(
    ("kind", "setting", "sentence"),
    [
        ("falcon", {"alibi": True}, "with positions by ALiBi"),
        ("opt", {"do_layer_norm_before": False}, "with norms after each block"),
        ("opt", {"_remove_final_layer_norm": True}, "with no norm before its head"),
        ("opt", {"hidden_size": 48, "word_embed_proj_dim": 24}, "with embeddings of another width"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "with attention in both directions"),
        ("bert", {}, "family 'bert'; editable are falcon, gemma"),
        ("mixtral", {"num_local_experts": 8}, "family 'mixtral', a mixture of experts; editable are"),
        ("t5", {"is_encoder_decoder": True}, "family 't5', with an encoder; editable are"),
        ("gemma3", {"text_config": {"model_type": "gemma3_text"}}, "family 'gemma3', more than a text model; editable"),
        (None, {}, "^mine names no model_type in its config.json; editable are"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(kind: str | None, setting: dict[str, Any], sentence: str) -> None:
    from editlab.model.model import check_config

    with pytest.raises(ValueError, match=sentence):
        check_config({"model_type": kind, **setting}, "mine")


def test_what_is_exported_is_the_same_model_in_transformers_and_peft(editor: Editor, tmp_path: Path) -> None:
    session = Session(editor)
    session.edit(FACT, "rome", {"layer": 1, "steps": 4})
    for name, form, step in (("edited", "checkpoint", 1), ("base", "checkpoint", 0), ("adapter", "adapter", 1)):
        session.export(tmp_path / name, form, step=step)
    session.put_in_force()
    loaded, base = (
        AutoModelForCausalLM.from_pretrained(tmp_path / name, dtype="float32") for name in ("edited", "base")
    )
    ids = torch.tensor([editor.model.tokens(FACT.text).ids])
    with torch.no_grad():
        expected, unedited = editor.model.hf(input_ids=ids).logits, base(input_ids=ids).logits
        scale = float(expected.abs().max())
        assert float((expected - unedited).abs().max()) > 1e-3 * scale
        for other in (loaded, PeftModel.from_pretrained(base, tmp_path / "adapter")):
            assert float((other(input_ids=ids).logits - expected).abs().max()) <= 1e-5 * scale
    session.undo()
    session.put_in_force()


def test_a_folder_without_a_tokenizer_is_refused(editor: Editor, tmp_path: Path) -> None:
    editor.model.hf.config.save_pretrained(tmp_path / "mine")
    with pytest.raises(ValueError, match=r"mine has no tokenizer|the tokenizer of mine cannot be read"):
        load_folder(tmp_path / "mine")
