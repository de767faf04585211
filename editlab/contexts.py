"""Contexts: short texts set before a prompt, over which an edit's key and value are averaged.

A context is a template with one ``{}`` where the whole prompt goes; the first one, ``{}``, is the bare prompt. The
reference code samples them unseeded; here they come from a seed, so that an edit can be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from editlab.model import EditableModel

BARE = "{}"
MEMIT_STARTERS = ("The", "Therefore", "Because", "I", "You")


@dataclass(frozen=True)
class ContextPlan:
    """What contexts to sample: `groups` of (how many, of how many tokens), after the end-of-text token or `starters`.

    Lengths count the token or the words that the sample starts with. ROME (arXiv 2202.05262): 10 of 5 and 10 of 10
    tokens after the end-of-text token; MEMIT (arXiv 2210.07229): one of 10 tokens for each of five starters.
    """

    groups: tuple[tuple[int, int], ...] = ()
    starters: tuple[str, ...] = ()
    tokens: int = 10  # with starters
    top_k: int = 5


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
