"""The lens: its last row is the model's answer, and an edit changes nothing below its layer."""

from __future__ import annotations

import pytest
import torch

from editlab.core.inside import Lens
from editlab.inside.lens import block_outputs, lens
from editlab.model.fast.blocks import embed, run
from editlab.model.model import EditableModel
from tests.conftest import tiny_editor, tiny_model
from tests.test_families import CONFIGS, tiny

PROMPT = "The mother tongue of Danielle Darrieux is"
SUBJECT = (PROMPT.index("Danielle"), PROMPT.index(" is"))


@torch.no_grad()
@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_after_the_last_block_the_lens_is_the_models_answer_at_every_token(kind: str) -> None:
    model = tiny(kind)
    ids = model.tokens(PROMPT).ids
    theirs = model.hf(input_ids=torch.tensor([ids])).logits[0].float().softmax(-1)
    found = lens(model, PROMPT, target_new="English", target_true="French")
    new, true = (model.target_ids(each, PROMPT)[0] for each in ("English", "French"))
    assert found.p_new is not None
    assert found.p_true is not None
    for token in range(len(ids)):
        assert found.p_new[token][-1] == pytest.approx(float(theirs[token, new]), rel=1e-4)
        assert found.p_true[token][-1] == pytest.approx(float(theirs[token, true]), rel=1e-4)
        best = theirs[token].topk(10)
        cell = found.cell(token, model.n_layers - 1)
        assert [each.p for each in cell] == pytest.approx(best.values.tolist(), rel=1e-4)
        assert cell[0].token == model.token_text(int(best.indices[0]))


@torch.no_grad()
def test_each_row_is_what_the_blocks_so_far_make() -> None:
    model = tiny_model("llama")
    ids = model.tokens(PROMPT).ids
    outputs = block_outputs(model, ids)
    for layer in range(model.n_layers):
        one_by_one = run(model, range(layer + 1), embed(model, torch.tensor([ids])))[0]
        assert torch.allclose(outputs[layer], one_by_one, atol=1e-5)


def test_by_default_every_token_is_read_else_the_subjects_last_and_the_last() -> None:
    model = tiny_model("gpt2")
    whole, some = (lens(model, PROMPT, subject=SUBJECT, every_token=every) for every in (True, False))
    assert whole.positions == tuple(range(len(whole.tokens)))
    assert "".join(whole.tokens) == PROMPT
    assert "".join(whole.tokens[: whole.subject_last + 1 if whole.subject_last is not None else 0]).endswith("Darrieux")
    assert some.positions == (whole.subject_last, len(whole.tokens) - 1)
    for row, position in enumerate(some.positions):
        for layer in range(model.n_layers):
            assert [each.token for each in some.cell(row, layer)] == [e.token for e in whole.cell(position, layer)]
            ours, theirs = (
                [each.p for each in found] for found in (some.cell(row, layer), whole.cell(position, layer))
            )
            assert ours == pytest.approx(theirs, rel=1e-5)
    assert (some.p_new, some.p_true) == (None, None)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gptj"])
def test_below_the_lowest_edited_layer_an_edit_changes_no_bit(family: str, fact: object) -> None:
    editor = tiny_editor(family)
    model = editor.model
    before = lens(model, PROMPT, target_new="English")
    edit, _, _ = editor.compute([fact], editor.method("rome", {"layer": 2}))  # type: ignore[list-item]
    model.write([edit])
    after = lens(model, PROMPT, target_new="English")
    assert before.p_new is not None
    assert after.p_new is not None
    for row in range(len(before.positions)):
        assert before.p_new[row][:2] == after.p_new[row][:2]
        assert [before.cell(row, layer) for layer in (0, 1)] == [after.cell(row, layer) for layer in (0, 1)]
    assert before.p_new[-1][2:] != after.p_new[-1][2:]


def test_a_lens_is_json_and_back() -> None:
    found = lens(tiny_model("gpt2"), PROMPT, subject=SUBJECT, target_true="French", edited=[2])
    assert Lens.from_json(found.to_json()) == found


def test_wrong_prompts_are_refused() -> None:
    model: EditableModel = tiny_model("gpt2")
    with pytest.raises(ValueError, match="a text must have 1 to"):
        lens(model, "word " * 2000)
    with pytest.raises(ValueError, match="a text must have 1 to"):
        lens(model, "")
