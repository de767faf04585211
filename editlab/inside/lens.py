"""The logit lens: what the model would say if a block were its last one (nostalgebraist 2020)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from editlab.core.inside import Lens
from editlab.core.joining import AUTO
from editlab.inside.corruption import subject_span
from editlab.model.fast.blocks import log_probs
from editlab.model.model import EditableModel
from editlab.model.tokens import TokenIds

TEN = 10  # likeliest tokens of a cell
ROWS_AT_ONCE = 256  # cells whose probabilities of the whole vocabulary are held together

_texts: WeakKeyDictionary[EditableModel, dict[int, str]] = WeakKeyDictionary()


@torch.no_grad()
def block_outputs(model: EditableModel, ids: TokenIds) -> Tensor:
    """The output (layers, t, d) of every block, from one forward pass."""
    seen: dict[int, Tensor] = {}

    def keeping(layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: tuple, output: Any) -> None:
            seen[layer] = (output[0] if isinstance(output, tuple) else output)[0]

        return hook

    with ExitStack() as hooks:
        for layer, block in enumerate(model.blocks):
            hooks.callback(block.register_forward_hook(keeping(layer)).remove)
        model.hidden(model.batch([ids]))
    return torch.stack([seen[layer].to(model.device) for layer in range(model.n_layers)])


@torch.no_grad()
def lens(
    model: EditableModel,
    prompt: str,
    *,
    subject: tuple[int, int] | None = None,
    target_new: str | None = None,
    target_true: str | None = None,
    joined_by: str = AUTO,
    every_token: bool = True,
    edited: Sequence[int] = (),
) -> Lens:
    """The lens of a prompt, on the weights in force: at every token, or at the subject's last and at the last one.

    `subject`: the characters of the prompt, from start to end, that are its subject. P(new) and P(true) are of the
    first token of each object. Raises ValueError for a prompt or an object that the model cannot take.
    """
    tokens = model.tokens(prompt)
    model.check_row(tokens.ids)
    subject_last = None if subject is None else subject_span(model, prompt, *subject)[1] - 1
    last = len(tokens.ids) - 1
    of_interest = sorted({last, last if subject_last is None else subject_last})
    positions = list(range(last + 1)) if every_token else of_interest
    objects = [
        None if target is None else model.target_ids(target, prompt, joined_by)[0]
        for target in (target_new, target_true)
    ]
    hidden = block_outputs(model, tokens.ids)[:, positions].transpose(0, 1).flatten(0, 1)  # positions × layers
    ids, chances, asked = [], [], []
    for some in hidden.split(ROWS_AT_ONCE):
        scores = log_probs(model, some)
        best = scores.topk(min(TEN, model.n_vocabulary))
        ids.append(best.indices)
        chances.append(best.values.exp())
        asked.append(scores[:, [each or 0 for each in objects]].exp())
    shape = len(positions), model.n_layers
    top, p = (torch.cat(each).view(*shape, -1).tolist() for each in (ids, chances))
    of_objects = torch.cat(asked).view(*shape, 2)
    unique = sorted({i for row in top for cell in row for i in cell})
    places = {token: place for place, token in enumerate(unique)}
    p_new, p_true = (
        None if token is None else tuple(map(tuple, of_objects[..., n].tolist())) for n, token in enumerate(objects)
    )
    return Lens(
        tokens=_words(model, tokens.ids),
        positions=tuple(positions),
        subject_last=subject_last,
        words=_words(model, unique),
        top=tuple(tuple(tuple(places[i] for i in cell) for cell in row) for row in top),
        chances=tuple(tuple(map(tuple, row)) for row in p),
        p_new=p_new,
        p_true=p_true,
        edited=tuple(edited),
    )


def _words(model: EditableModel, ids: Sequence[int]) -> tuple[str, ...]:
    """The texts of tokens; each is decoded once per model."""
    known = _texts.setdefault(model, {})
    for token in ids:
        if token not in known:
            known[token] = model.token_text(token)
    return tuple(known[token] for token in ids)
