"""FT and FT-L against a plain loop that trains the model itself, and the laws of what they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from editlab.core.facts import Fact
from editlab.editing.editor import Editor
from editlab.editing.moments import SecondMoments
from editlab.measures.preservation import merged
from editlab.methods import adjusted, ft
from editlab.model.deltas import LowRank
from editlab.session.session import Session

LONG = Fact("The mother tongue of {} is", "Danielle Darrieux", "Upper Sorbian of course", "French")


def trained(
    editor: Editor, facts: Sequence[Fact], at_prompt: bool, batch: int, lr: float, steps: int, bound: float | None
) -> torch.Tensor:
    """ΔW (d_out, d_in) of layer 2, by transformers' own forward, one text at a time; the weight itself is trained."""
    model, hf, projection = editor.model, editor.model.hf, editor.model.projection(2)
    fast = vars(projection).pop("forward", None)  # a product of frozen weights
    weight = projection.weight.requires_grad_(True)
    before = weight.detach().clone()
    adam = torch.optim.Adam([weight], lr=lr)
    for _ in range(steps):
        for start in range(0, len(facts), batch):
            losses = []
            for fact in facts[start : start + batch]:
                prompt, whole = (list(model.tokens(text).ids) for text in (fact.text, f"{fact.text} {fact.target_new}"))
                new = whole[len(prompt) :]
                text = prompt if at_prompt else whole
                logs = hf(input_ids=torch.tensor([text])).logits[0].log_softmax(-1)
                places = [len(prompt) - 1 + (0 if at_prompt else i) for i in range(len(new))]
                losses.append(-sum(logs[place, token] for place, token in zip(places, new, strict=True)) / len(new))
            loss = sum(losses) / len(losses)
            adam.zero_grad()
            loss.backward()
            adam.step()
            if bound is not None:
                weight.data = torch.maximum(torch.minimum(weight.data, before + bound), before - bound)
    change = weight.detach() - before
    weight.requires_grad_(False).data = before
    if fast is not None:
        projection.forward = fast
    return change.T if model.family.transposed else change


@pytest.mark.parametrize("objective", ["prompt_last", "target_new"])
@pytest.mark.parametrize(("name", "bound"), [("ft", None), ("ft-l", 1e-3)])
def test_fine_tuning_is_what_a_plain_loop_computes(
    editor: Editor, facts: list[Fact], name: str, bound: float | None, objective: str
) -> None:
    """Three facts, one with an object of several tokens, in updates of two facts and one."""
    facts = [facts[0], LONG, facts[2]]
    assert len(editor.model.target_ids(LONG.target_new, LONG.text)) > 1
    changes: dict[str, Any] = {"batch_size": 2, "steps": 4, "objective": objective}
    method = editor.method(name, changes | ({"bound": bound} if bound else {}))
    edit, trace, provenance = editor.compute(facts, method)
    expected = trained(editor, facts, objective == "prompt_last", 2, method.learning_rate, 4, bound)
    found = edit[2].dense()
    assert float((found - expected).norm() / expected.norm()) < 1e-3
    if bound:
        assert float(found.abs().max()) <= bound * 1.001
        assert float((found.abs() > 0.99 * bound).float().mean()) > 0.1  # the bound is felt
    assert trace.values == ()
    assert provenance["second_moments"] == {}


def test_fine_tuning_stops_once_the_facts_are_learned(gpt2_editor: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of random weights does not learn an object as well as the constant asks for."""
    monkeypatch.setattr(ft, "LEARNED", 0.2)
    model, stages = gpt2_editor.model, []
    fact = Fact("{} originated in", "OK Go", "the", "a")
    method = gpt2_editor.method("ft", {"steps": 50, "learning_rate": 0.005})
    edit, _, _ = gpt2_editor.compute([fact], method, stages.append)
    assert 1 < max(stage.done for stage in stages if stage.stage == "fine-tuning") < 50
    (wanted,) = model.target_ids(fact.target_new, fact.text)
    with model.overlaid(edit), torch.no_grad():
        said = model.hf(input_ids=torch.tensor([model.tokens(fact.text).ids])).logits[0, -1].log_softmax(-1)
    assert -0.2 < float(said[wanted]) < 0


def test_a_fine_tuned_change_is_at_most_what_was_foreseen(session: Session, fact: Fact) -> None:
    risk = session.risk(fact, ["ft-l"], {"ft-l": {"bound": 1e-4}})["ft-l"]
    step = session.edit(fact, "ft-l", {"bound": 1e-4})
    assert 0 < step.trace.layers[2].delta_norm <= risk.predicted_norm * 1.0001
    assert "no weight changes by more than 0.0001" in risk.reason
    assert session.risk(fact, ["ft"])["ft"].predicted_norm is None
    session.undo()
    session.goto(0)


def test_fine_tuning_needs_no_second_moments(gpt2_editor: Editor, fact: Fact) -> None:
    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("second moments were asked for")

    editor = Editor(gpt2_editor.model, moments=SecondMoments({}, {}), contexts=["{}"])
    editor.moments = forbidden
    edit, _, provenance = editor.compute([fact], adjusted(editor.method("ft"), {"steps": 2}))
    assert edit[1].norm() > 0
    assert provenance["second_moments"] == {}


def test_deltas_of_full_rank_are_merged_and_small_ones_are_not() -> None:
    torch.manual_seed(0)
    whole = [LowRank(torch.randn(4, 4), torch.randn(6, 4)) for _ in range(3)]
    for keep in (0, 1):
        found = merged(whole, keep)
        assert len(found) == 1 + keep
        before, after = (sum(d.left.double() @ d.right.double().T for d in some) for some in (whole, found))
        torch.testing.assert_close(before, after)
    small = [replace(delta, left=delta.left[:, :1], right=delta.right[:, :1]) for delta in whole]
    assert merged(small, 1) == small
