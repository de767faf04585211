"""Causal tracing: the reference's numbers, the plain way's numbers, and laws that need neither."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

from editlab.core.facts import Fact
from editlab.core.inside import ATTENTION, BLOCK, MLP
from editlab.experiments.verify import verify
from editlab.inside import plain
from editlab.inside.corruption import (
    Corruption,
    Replacement,
    by_noise,
    by_replacement,
    embedding_sigma,
    noise_of,
    span_of,
    subject_span,
)
from editlab.inside.tracing import Tracer
from editlab.model.model import EditableModel
from tests.conftest import FAMILIES, GOLDEN, tiny_model
from tests.test_families import CONFIGS, tiny

SETTINGS = [(BLOCK, 1), (MLP, 10), (MLP, 4), (MLP, 1), (ATTENTION, 3), (ATTENTION, 1)]
FACT = Fact("The mother tongue of {} is", "Danielle Darrieux", "English", "French")


def noised(model: EditableModel, rows: int = 3) -> tuple[tuple[int, ...], Corruption]:
    """The tokens of a prompt, and its corruption by noise."""
    ids, span = model.tokens(FACT.text).ids, span_of(model, FACT)
    level = 3 * embedding_sigma(model, ["Danielle Darrieux", "OK Go"])
    noise = noise_of(model, span[1] - span[0], level, seed=1, rows=rows)
    return ids, by_noise(model, ids, span, 7, noise)


def replaced(model: EditableModel) -> tuple[tuple[int, ...], Corruption]:
    """The tokens of a prompt, and its corruption by two other subjects of as many tokens."""
    ids, (first, end) = model.tokens(FACT.text).ids, span_of(model, FACT)
    others = [tuple((i + shift) % 900 if first <= t < end else i for t, i in enumerate(ids)) for shift in (11, 23)]
    return ids, by_replacement(model, first, 7, [Replacement("", row, 50 + n) for n, row in enumerate(others)])


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> EditableModel:
    return tiny_model(request.param)


# --- the reference ---


def test_the_noise_has_the_references_scale() -> None:
    reference = json.loads((GOLDEN / "trace" / "causal-trace.json").read_text(encoding="utf-8"))
    subjects = [name for _, name in reference["sigma_subjects"]]
    assert embedding_sigma(tiny_model("gpt2"), subjects) == pytest.approx(reference["sigma"], abs=1e-7)


@pytest.mark.parametrize("number", range(4))
def test_grids_are_the_references(number: int) -> None:
    model = tiny_model("gpt2")
    prompt = json.loads((GOLDEN / "trace" / "causal-trace.json").read_text(encoding="utf-8"))["prompts"][number]
    tensors = load_file(GOLDEN / "trace" / "causal-trace.safetensors")
    start = prompt["prompt"].index(prompt["subject"])
    span = subject_span(model, prompt["prompt"], start, start + len(prompt["subject"]))
    assert span == tuple(prompt["subject_range"])
    ids = model.tokens(prompt["prompt"]).ids
    corruption = by_noise(model, ids, span, prompt["answer_id"], tensors[f"{prompt['name']}.noise"])
    with corruption.applied(model):
        embedded = model.hf.get_input_embeddings()(corruption.ids)[:, slice(*span)]
    assert torch.equal(embedded, tensors[f"{prompt['name']}.embedding_corrupted"])
    for grid in ("block", "mlp-10", "attn-10", "mlp-4", "attn-4", "mlp-3", "attn-3", "mlp-1", "attn-1"):
        kind, _, window = grid.partition("-")
        tracer = Tracer(model, ids, corruption, {"attn": ATTENTION}.get(kind, kind), int(window or 1))
        assert tracer.said == prompt["answer_id"]
        assert tracer.clean == pytest.approx(prompt["clean"], abs=1e-6)
        assert tracer.low.tolist() == pytest.approx(prompt["low_rows"], abs=1e-6)
        theirs = tensors[f"{prompt['name']}.{grid}"].double()
        assert float((tracer().mean(-1) - theirs).abs().max()) <= 1e-6, grid


# --- the plain way ---


@pytest.mark.parametrize(("kind", "window"), SETTINGS)
def test_cells_are_those_of_whole_forward_passes(model: EditableModel, kind: str, window: int) -> None:
    ids, corruption = noised(model)
    ours = Tracer(model, ids, corruption, kind, window)()
    for token in range(len(ids)):
        for layer in range(model.n_layers):
            theirs = plain.cell(model, ids, corruption, kind, window, token, layer)
            assert torch.allclose(ours[token, layer], theirs, atol=1e-6), (token, layer)


def test_replacements_are_scored_as_shares_of_their_own_logit_difference(model: EditableModel) -> None:
    ids, corruption = replaced(model)
    nothing = plain.measured(model, ids, corruption, BLOCK, [], [])
    low = nothing[1:]
    everything = plain.measured(model, ids, corruption, BLOCK, [2], range(len(ids)))[1:]
    for kind, window in ((BLOCK, 1), (MLP, 3)):
        ours = Tracer(model, ids, corruption, kind, window)()
        for token, layer in ((4, 0), (5, 2), (len(ids) - 1, 3), (len(ids) - 1, 4)):
            theirs = (plain.cell(model, ids, corruption, kind, window, token, layer) - low) / (everything - low)
            assert torch.allclose(ours[token, layer], theirs, atol=1e-4), (kind, token, layer)


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_every_family_can_be_traced(kind: str) -> None:
    model = tiny(kind)
    ids, corruption = noised(model, rows=2)
    for part, window in ((BLOCK, 1), (MLP, 2), (ATTENTION, 1)):
        ours = Tracer(model, ids, corruption, part, window)()
        for token, layer in ((4, 1), (len(ids) - 1, 0), (len(ids) - 1, 3)):
            theirs = plain.cell(model, ids, corruption, part, window, token, layer)
            assert torch.allclose(ours[token, layer], theirs, atol=1e-6), (part, token, layer)


# --- laws ---


def test_restoring_a_block_at_all_tokens_gives_the_clean_run_and_restoring_nothing_the_corrupted_one(
    model: EditableModel,
) -> None:
    ids, corruption = noised(model)
    tracer = Tracer(model, ids, corruption)
    for layer in range(model.n_layers):
        found = plain.measured(model, ids, corruption, BLOCK, [layer], range(len(ids)))[1:]
        assert found.tolist() == pytest.approx([tracer.clean] * 3, abs=1e-6)
    nothing = plain.measured(model, ids, corruption, BLOCK, [], [])
    assert nothing[1:].tolist() == pytest.approx(tracer.low.tolist(), abs=1e-6)
    scores = tracer()
    assert scores[-1, -1].tolist() == pytest.approx([tracer.clean] * 3, abs=1e-6)


@pytest.mark.parametrize("make", [noised, replaced])
@pytest.mark.parametrize(("kind", "window"), SETTINGS)
def test_cells_that_change_nothing_are_low_exactly(model: EditableModel, make: Any, kind: str, window: int) -> None:
    ids, corruption = make(model)
    tracer = Tracer(model, ids, corruption, kind, window)
    scores = tracer()
    low = tracer.low.expand_as(scores)
    assert torch.equal(scores[: corruption.first], low[: corruption.first])
    if window == 1:
        assert torch.equal(scores[:-1, -1], low[:-1, -1])
    assert not torch.equal(scores[corruption.first :], low[corruption.first :])


def test_a_tracer_that_was_stopped_goes_on(model: EditableModel) -> None:
    ids, corruption = noised(model)
    whole, stopped = Tracer(model, ids, corruption)(), Tracer(model, ids, corruption)
    seen: list[int] = []

    def stop(progress: Any) -> None:
        seen.append(progress.done)
        if progress.done == 2 and seen.count(2) == 1:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        stopped(stop)
    assert [layer in stopped.columns for layer in range(5)] == [False, False, False, True, True]
    shown = stopped.grid()
    assert shown[0][:3] == (None, None, None)
    assert shown[-1][4] == pytest.approx(float(whole[-1, 4].mean()))
    assert torch.equal(stopped(stop), whole)
    assert seen == [0, 1, 2, 2, 3, 4, 5]


def test_wrong_input_is_told() -> None:
    model = tiny_model("llama")
    ids, corruption = noised(model)
    with pytest.raises(ValueError, match="kind must be one of block, mlp, attention, got 'norm'"):
        Tracer(model, ids, corruption, "norm")
    with pytest.raises(ValueError, match="window must be 1 for blocks"):
        Tracer(model, ids, corruption, BLOCK, 10)
    with pytest.raises(ValueError, match="the noise is for 2 tokens"):
        by_noise(model, ids, (4, 5), 7, torch.zeros(3, 2, 48))


# --- verify ---


def reference_folder(folder: Path, **changed: float) -> Path:
    """A copy of the golden model with its traces alone; these tensors are off by these numbers, in one entry."""
    for file in GOLDEN.glob("*"):
        if file.name == "model.safetensors" or "token" in file.name or "config" in file.name:
            shutil.copyfile(file, folder / file.name)
    shutil.copytree(GOLDEN / "trace", folder / "trace")
    tensors = load_file(folder / "trace" / "causal-trace.safetensors")
    for name, error in changed.items():
        tensors[name.replace("__", ".").replace("_", "-")].view(-1)[0] += error
    (folder / "trace" / "causal-trace.safetensors").write_bytes(save(tensors))
    return folder


def test_verify_reads_a_folder_that_holds_traces_alone(tmp_path: Path) -> None:
    report = verify(reference_folder(tmp_path))
    assert report.ok, report.failures()
    assert (len(report.rows), len(report.traces)) == (0, 1 + 4 * 12)


def test_verify_sees_a_wrong_grid(tmp_path: Path) -> None:
    report = verify(reference_folder(tmp_path, middle__mlp_4=3e-6, start__block=5e-7))
    assert not report.ok
    assert report.failures() == ["trace: middle: mlp-4 is off by 3.0e-06, more than 1e-06"]
