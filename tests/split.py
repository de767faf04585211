"""A model split over two devices on a machine that has one: tensors that are held apart, as those of two GPUs are.

Within `TwoDevices()`, "cpu:0" and "cpu:1" are devices of their own: a tensor is where its storage was made or moved
to, its `device` says so, and torch's functions refuse tensors of both, as they do on GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate import dispatch_model
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from editlab.model.model import EditableModel

FIRST, SECOND = torch.device("cpu", 0), torch.device("cpu", 1)
MAY_MEET = {"copy_"}  # a copy may cross; `data` and `grad` are set by modules and optimisers


class TwoDevices(TorchFunctionMode):
    """Within the block every storage has a place: what is made of other tensors has theirs, all else is on FIRST."""

    def __init__(self) -> None:
        super().__init__()
        self._places: dict[int, torch.device] = {}
        self._held: list[Any] = []  # storages, so that no address is used twice

    def place(self, tensor: Tensor) -> torch.device:
        with torch._C.DisableTorchFunction():
            return self._places.get(tensor.untyped_storage()._cdata, FIRST)

    def _put(self, tensor: Tensor, device: torch.device) -> Tensor:
        storage = tensor.untyped_storage()
        self._held.append(storage)
        self._places[storage._cdata] = device
        return tensor

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name, of = getattr(func, "__name__", ""), getattr(func, "__self__", None)
        if name in ("__get__", "__set__"):
            if getattr(of, "__name__", "") == "device":
                return self.place(args[0])
            return func(*args, **kwargs)
        if name == "to":
            return self._moved(*args, **kwargs)
        if name == "cpu":
            return self._moved(args[0], FIRST)
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        places = {self.place(each) for each in tensors}
        made = func(*args, **kwargs)
        if name == "grad":
            for one, at in zip(made, tree_leaves(args[1]), strict=True):
                self._put(one, self.place(at))
            return made
        if len(places) > 1 and name not in MAY_MEET:
            shapes = [(tuple(each.shape), str(self.place(each))) for each in tensors]
            raise RuntimeError(f"{name} of tensors on two devices: {shapes}")
        device = kwargs.get("device")
        home = next(iter(places), FIRST) if device is None else self.known(device)
        for each in tree_leaves(made):
            if isinstance(each, Tensor) and each.untyped_storage()._cdata not in self._places:
                self._put(each, home)
        return made

    def _moved(self, tensor: Tensor, *told: Any, **named: Any) -> Tensor:
        """`tensor.to(…)`, which may name a device, a dtype, or another tensor that has both."""
        told = (*told, *(named.pop(name) for name in ("device", "dtype", "other") if name in named))
        devices = [torch.device(each) for each in told if isinstance(each, torch.device | str)]
        like = [each for each in told if isinstance(each, Tensor)]
        dtypes = [each for each in told if isinstance(each, torch.dtype)] + [each.dtype for each in like]
        wanted = [self.known(each) for each in devices] + [self.place(each) for each in like]
        here = self.place(tensor)
        there = wanted[0] if wanted else here
        made = tensor.to(dtypes[0] if dtypes else tensor.dtype, **named)
        if there != here and made.untyped_storage()._cdata == tensor.untyped_storage()._cdata:
            made = made.clone()
        return made if made is tensor else self._put(made, there)

    @staticmethod
    def known(device: torch.device | str) -> torch.device:
        return FIRST if torch.device(device).index is None else torch.device(device)


def split(model: EditableModel, first: torch.device = FIRST, second: torch.device = SECOND) -> EditableModel:
    """The model with its upper blocks on `second`, dispatched by accelerate; within `TwoDevices` where one is there."""
    n = model.n_layers
    blocks = {f"{model.family.blocks}.{layer}": second if layer >= n // 2 else first for layer in range(n)}
    others = dict.fromkeys((name for name in _leaves(model) if not name.startswith(model.family.blocks)), first)
    places = {**others, **blocks, model.family.norm: second}
    hf = dispatch_model(model.hf, places, main_device=first, force_hooks=True)
    return EditableModel(hf, model.tokenizer, model.name)


def _leaves(model: EditableModel) -> list[str]:
    return [name for name, module in model.hf.named_modules() if name and not list(module.children())]
