"""A reference folder's `trace/`: the authors' causal traces, recomputed from their own noise.

`causal-trace.json` holds σ with its subjects, and per prompt its text, the subject's tokens, the answer, clean, low and
the corrupted rows' probabilities; `causal-trace.safetensors` the noise "{prompt}.noise", the corrupted embeddings
"{prompt}.embedding_corrupted" and the grids "{prompt}.{grid}", tokens × layers, named as the JSON's "grids" are: block,
mlp-10, attn-10 and so on, with the window's layers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from editlab.core.inside import ATTENTION, BLOCK, MLP
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.inside.corruption import by_noise, embedding_sigma, subject_span
from editlab.inside.tracing import Tracer
from editlab.model.model import EditableModel

TRACE = "trace/causal-trace.json"
SIGMA_WITHIN = 1e-7
GRIDS_WITHIN = 1e-6
KINDS = {"block": BLOCK, "mlp": MLP, "attn": ATTENTION}  # as the reference names them


@dataclass(frozen=True)
class TraceRow:
    """One number or grid against the reference: the largest difference, and the largest allowed one."""

    prompt: str  # "" for σ
    what: str  # "σ", "embeddings", "clean", "low" or a grid's name
    cells: int
    error: float
    allowed: float

    @property
    def agrees(self) -> bool:
        return self.error <= self.allowed  # a NaN does not


def compare_traces(model: EditableModel, file: Path, report: OnProgress = quiet) -> list[TraceRow]:
    """Recompute the traces of a reference's JSON file, beside which the tensors are."""
    reference = json.loads(file.read_text(encoding="utf-8"))
    tensors = load_file(file.with_suffix(".safetensors"))
    sigma = embedding_sigma(model, [name for _, name in reference["sigma_subjects"]])
    rows = [TraceRow("", "σ", 1, abs(sigma - reference["sigma"]), SIGMA_WITHIN)]
    prompts = reference["prompts"]
    for number, prompt in enumerate(prompts):
        report(Progress("verifying causal traces", number, len(prompts)))
        rows += _rows(model, prompt, reference["grids"], tensors)
    return rows


def trace_disagreements(rows: tuple[TraceRow, ...]) -> list[str]:
    """A sentence for each row that does not agree."""
    return [
        f"trace: {': '.join(filter(None, [row.prompt, row.what]))} is off by {row.error:.1e}, more than {row.allowed:g}"
        for row in rows
        if not row.agrees
    ]


def _rows(
    model: EditableModel, prompt: Mapping[str, Any], grids: list[str], tensors: Mapping[str, Tensor]
) -> Iterator[TraceRow]:
    name, text, subject = prompt["name"], prompt["prompt"], prompt["subject"]
    start = text.index(subject)
    span = subject_span(model, text, start, start + len(subject))
    ids = model.tokens(text).ids
    corruption = by_noise(model, ids, span, prompt["answer_id"], tensors[f"{name}.noise"])
    with corruption.applied(model), torch.no_grad():
        embedded = model.hf.get_input_embeddings()(corruption.ids)[:, slice(*span)].cpu()
    theirs = tensors[f"{name}.embedding_corrupted"]
    yield TraceRow(name, "embeddings", theirs.numel(), _largest(embedded, theirs), 0.0)
    for grid in grids:
        kind, _, window = grid.partition("-")
        tracer = Tracer(model, ids, corruption, KINDS[kind], int(window or 1))
        if grid == grids[0]:
            yield TraceRow(name, "clean", 1, abs(tracer.clean - prompt["clean"]), GRIDS_WITHIN)
            low = torch.tensor(prompt["low_rows"], dtype=torch.float64)
            yield TraceRow(name, "low", len(low), _largest(tracer.low, low), GRIDS_WITHIN)
        theirs = tensors[f"{name}.{grid}"]
        yield TraceRow(name, grid, theirs.numel(), _largest(tracer().mean(-1), theirs), GRIDS_WITHIN)


def _largest(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.double() - theirs.double()).abs().max()) if ours.shape == theirs.shape else float("inf")
