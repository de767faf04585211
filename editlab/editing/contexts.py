"""Contexts: short texts set before a prompt, over which an edit's key and value are averaged.

A context is a template with one ``{}`` where the whole prompt goes; the first one, ``{}``, is the bare prompt. The
reference code samples contexts without a seed; here they come from a seed, so that an edit can be repeated.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from editlab.core.disk import make_folder, write_json
from editlab.core.paths import cache_dir
from editlab.methods._base import ContextPlan
from editlab.model.generation import TopKRace, generate
from editlab.model.model import EditableModel
from editlab.model.tokens import TokenIds

log = logging.getLogger(__name__)

BARE = "{}"


def contexts_of(model: EditableModel, plan: ContextPlan, seed: int, cache: Path | None = None) -> tuple[str, ...]:
    """As `sample_contexts`, which runs once: later calls read the cache, also with another build of torch.

    Raises ValueError for a cache that sampled contexts cannot be kept in.
    """
    plan_digest = hashlib.sha256(json.dumps(asdict(plan)).encode()).hexdigest()[:16]
    file = (cache or cache_dir()) / "contexts" / model.fingerprint() / f"{plan_digest}-{seed}.json"
    try:
        return check_contexts(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:  # not there, or damaged
        log.debug("contexts are sampled: %s", error)
    make_folder(file.parent)
    contexts = sample_contexts(model, plan, seed)
    try:
        write_json(file, contexts)
    except OSError as error:
        log.warning("the contexts could not be kept: %s", error)
    return contexts


@torch.no_grad()
def sample_contexts(model: EditableModel, plan: ContextPlan, seed: int) -> tuple[str, ...]:
    """The bare context and those sampled from the unedited model; equal for the same seed, device and torch build."""
    generator = torch.Generator().manual_seed(seed)
    contexts = [BARE]
    with model.unedited():
        for count, length in plan.groups:
            if count:
                texts = _sampled(model, [(model.start_id,)] * count, length - 1, plan.top_k, generator)
                contexts += [text + ". {}" for text in texts]
        for starter in plan.starters:
            length = len(model.tokenizer(starter, add_special_tokens=False)["input_ids"])
            row = model.tokens(starter).ids
            (text,) = _sampled(model, [row], plan.tokens - length, plan.top_k, generator)
            contexts.append(starter + text + ". {}")
    return tuple(contexts)


def _sampled(
    model: EditableModel, rows: Sequence[TokenIds], n_tokens: int, top_k: int, generator: torch.Generator
) -> list[str]:
    """The text sampled after each row, `n_tokens` tokens long; braces and line breaks become blanks."""
    choose = TopKRace(top_k, len(rows), n_tokens, generator)
    made = generate(model, rows, n_tokens, choose, banned=model.tokenizer.all_special_ids)
    texts = [model.continuation(row, ids) for row, ids in zip(rows, made, strict=True)]
    return [re.sub(r"[{}\n]", " ", text) for text in texts]


def check_contexts(contexts: Sequence[str]) -> tuple[str, ...]:
    """The contexts as a tuple; raises ValueError unless the first is ``{}`` and each holds ``{}`` once."""
    if not contexts or contexts[0] != BARE:
        raise ValueError(f"the first context must be the bare prompt '{{}}', got {list(contexts[:1])}")
    for context in contexts:
        if context.count("{}") != 1 or context.count("{") != 1 or context.count("}") != 1:
            raise ValueError(f"a context must contain {{}} exactly once and no other brace, got {context!r}")
    return tuple(contexts)
