"""Every architecture in the table obeys the laws: on a tiny model of random weights, built from its configuration."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from editlab.core.facts import Fact
from editlab.editing.editor import Editor
from editlab.editing.moments import SecondMoments, compute, rows_of_texts
from editlab.model.families import FAMILIES
from editlab.model.fast.blocks import embed, logits, run
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


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def editor(request: pytest.FixtureRequest) -> Editor:
    tokenizer = AutoTokenizer.from_pretrained(str(GOLDEN))
    config = AutoConfig.for_model(
        request.param, **CONFIGS[request.param], vocab_size=len(tokenizer), initializer_range=0.2
    )
    torch.manual_seed(0)
    model = EditableModel(AutoModelForCausalLM.from_config(config).float(), tokenizer, f"tiny-{request.param}")
    matrices, keys = compute(model, range(4), rows_of_texts(model, TEXT.split("\n\n")), 2_000)
    return Editor(model, moments=SecondMoments(matrices, {"name": "some text", "keys": keys}), contexts=CONTEXTS)


@torch.no_grad()
def test_blocks_run_one_by_one_are_the_model(editor: Editor) -> None:
    model = editor.model
    ids = torch.randint(0, model.n_vocabulary, (2, 20), generator=torch.Generator().manual_seed(1))
    ours = logits(model, run(model, range(model.n_layers), embed(model, ids)))
    theirs = model.hf(input_ids=ids).logits
    assert float((ours - theirs).abs().max()) <= 2e-6 * float(theirs.abs().max()) + 2e-6


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
        with pytest.raises(ValueError, match="MEMIT aims at a block's output, and in tiny"):
            editor.method("memit")
    session.put_in_force()


@pytest.mark.parametrize(
    ("kind", "setting", "sentence"),
    [
        ("falcon", {"alibi": True}, "with positions by ALiBi"),
        ("opt", {"do_layer_norm_before": False}, "with norms after each block"),
        ("bert", {}, "family 'bert'; editable are falcon, gemma"),
        ("mixtral", {}, "family 'mixtral'; editable are"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(kind: str, setting: dict[str, Any], sentence: str) -> None:
    from editlab.model.model import check_config

    with pytest.raises(ValueError, match=sentence):
        check_config({"model_type": kind, **setting}, "mine")
