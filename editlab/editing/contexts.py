"""Contexts: short texts set before a prompt, over which an edit's key and value are averaged.

A context is a template with one ``{}`` where the whole prompt goes; the first one, ``{}``, is the bare prompt. The
reference code samples them unseeded; here they come from a seed, so that an edit can be repeated.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from editlab.core.disk import write_json
from editlab.core.paths import cache_dir
from editlab.methods._base import ContextPlan
from editlab.model.model import EditableModel

log = logging.getLogger(__name__)

BARE = "{}"


def contexts_of(model: EditableModel, plan: ContextPlan, seed: int, cache: Path | None = None) -> tuple[str, ...]:
    """As `sample_contexts`, which is asked once: from then on they are read from the cache, whatever torch's build."""
    told = hashlib.sha256(json.dumps(asdict(plan)).encode()).hexdigest()[:16]
    file = (cache or cache_dir()) / "contexts" / model.fingerprint() / f"{told}-{seed}.json"
    try:
        return check_contexts(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:  # not there, or damaged
        log.debug("contexts are sampled: %s", error)
    contexts = sample_contexts(model, plan, seed)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, contexts)
    except OSError as error:
        log.warning("the contexts could not be kept: %s", error)
    return contexts


@torch.no_grad()
def sample_contexts(model: EditableModel, plan: ContextPlan, seed: int) -> tuple[str, ...]:
    """The bare context and the sampled ones, from the unedited model; the same for the same seed, device and build."""
    generator = torch.Generator().manual_seed(seed)
    contexts = [BARE]
    with model.unedited():
        for count, length in plan.groups:
            if not count:
                continue
            rows = [[model.start_id]] * count
            texts = _continue(model, rows, length - 1, plan.top_k, generator)
            contexts += [text + ". {}" for text in texts]
        for starter in plan.starters:
            row = model.tokenizer(starter, add_special_tokens=False)["input_ids"]
            (text,) = _continue(model, [row], plan.tokens - len(row), plan.top_k, generator)
            contexts.append(starter + text + ". {}")
    return tuple(contexts)


def _continue(
    model: EditableModel, rows: list[list[int]], n_tokens: int, top_k: int, generator: torch.Generator
) -> list[str]:
    """Texts of `n_tokens` sampled after rows of one length; braces and line breaks become blanks."""
    special = torch.tensor(model.tokenizer.all_special_ids)
    ids = torch.tensor(rows)  # (n, t)
    for _ in range(n_tokens):
        logits = model.log_probs(model.hidden(model.batch(ids.tolist()))[:, -1]).cpu()  # (n, vocabulary)
        logits[:, special] = -torch.inf
        best = logits.topk(top_k)
        choice = torch.multinomial(best.values.softmax(-1), 1, generator=generator)  # (n, 1)
        ids = torch.cat([ids, best.indices.gather(1, choice)], dim=1)
    texts = model.tokenizer.batch_decode(ids[:, len(rows[0]) :], skip_special_tokens=True)
    return [text.replace("{", " ").replace("}", " ").replace("\n", " ") for text in texts]


def check_contexts(contexts: Sequence[str]) -> tuple[str, ...]:
    """The contexts as a tuple; raises ValueError unless the first is ``{}`` and each holds ``{}`` once."""
    if not contexts or contexts[0] != BARE:
        raise ValueError(f"the first context must be the bare prompt '{{}}', got {list(contexts[:1])}")
    for context in contexts:
        if context.count("{}") != 1 or context.count("{") != 1 or context.count("}") != 1:
            raise ValueError(f"a context must contain {{}} exactly once and no other brace, got {context!r}")
    return tuple(contexts)
