"""A model in half precision: undone is as never edited, to the last bit; a state is the same however it came about."""

from __future__ import annotations

import pytest
import torch

from editlab.core.facts import Fact
from editlab.editing.editor import Editor
from editlab.model.model import EditableModel
from editlab.session.replay import read, record, replay
from editlab.session.session import Session
from tests.conftest import CONTEXTS, tiny_editor, tiny_model


def half_editor(family: str, dtype: torch.dtype) -> Editor:
    whole, like = tiny_model(family), tiny_editor(family)
    editor = Editor(EditableModel(whole.hf.to(dtype), whole.tokenizer, whole.name), moments=like._moments)
    editor._given_contexts = CONTEXTS
    editor.methods = like.methods
    return editor


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gptj"])
def test_preview_edit_undo_preview(family: str, dtype: torch.dtype, facts: list[Fact]) -> None:
    editor = half_editor(family, dtype)
    session = Session(editor)
    first = session.preview(facts[0])
    weights = [editor.model.weight(layer).clone() for layer in range(5)]
    editor.prepare()
    for method in editor.methods:
        edited = session.edit(facts[0], method).measurement.completions
        session.undo()
        session.measurements._caches.clear()  # what was found is asked again
        assert session.preview(facts[0]) == first
        assert all(torch.equal(editor.model.weight(n), before) for n, before in enumerate(weights))
        session.redo()
        session.measurements._caches.clear()
        assert session.preview(facts[0]) == edited[: len(first)]
        session.undo()


def test_a_replay_file_makes_the_same_weights(facts: list[Fact]) -> None:
    editor = half_editor("llama", torch.bfloat16)
    session = Session(editor)
    session.edit(facts[0], "memit")
    session.edit(facts[1], "rome")
    session.undo()
    file = record(session)
    result = replay(half_editor("llama", torch.bfloat16), *read(file), recompute=True)
    assert result.exact
    assert result.ok
