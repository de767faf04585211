"""Free memory, what it allows, and what to do when none is left."""

from __future__ import annotations

import ctypes
import gc
import logging
from collections.abc import Callable
from typing import TypeVar

import psutil
import torch
from torch import Tensor

from editlab.core.errors import LabError

SPARE_SHARE = 0.25  # of a GPU's free memory that one spare copy may take

GROWN = 2**29  # bytes

NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")  # allocators say

T = TypeVar("T")

log = logging.getLogger(__name__)


def free_bytes(device: torch.device) -> int:
    """Bytes that are still free on a device; what torch keeps of a GPU's memory for later tensors counts as free."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    return int(psutil.virtual_memory().available)


def used_bytes(device: torch.device) -> int:
    """Bytes of a GPU's memory in use by tensors of this process; 0 on another device."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def spare_copy(weight: Tensor) -> Tensor:
    """A backup copy: next to the weight, or in the host's pinned memory where a GPU has little left."""
    if weight.device.type == "cuda" and weight.nbytes > SPARE_SHARE * free_bytes(weight.device):
        return torch.empty_like(weight, device="cpu", pin_memory=True).copy_(weight)
    return weight.clone()


def ran_out(error: BaseException) -> bool:
    """Whether an error means that memory ran out."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


def with_room(work: Callable[[], T], make_room: Callable[[], None]) -> T:
    """The result of `work`; if memory runs out, `work` is tried once more after `make_room` has freed some.

    Raises LabError, with a sentence, if that is not enough.
    """
    try:
        return work()
    except Exception as error:
        if not ran_out(error):
            raise
        log.warning("a job ran out of memory and is tried again: %s", error)
    # not within `except`: the traceback keeps the computed tensors alive
    _give_back(make_room)
    try:
        return work()
    except Exception as error:
        if not ran_out(error):
            raise
        sentence = f"There is not enough memory for this, even with all caches emptied ({str(error).splitlines()[0]})."
    _give_back(make_room)
    raise LabError(f"{sentence} Every session is as it was; fewer facts at once, or shorter ones, need less.")


class Heap:
    """This process's memory, as the C library holds it.

    glibc keeps what is free below a block in use, and hardly uses it again for aligned blocks, as tensors are (its bug
    14581, in Debian 12): by itself a process that measures for hours grows by gigabytes.
    """

    def __init__(self) -> None:
        self._held = 0  # resident bytes when freed memory was last given back

    def give_back(self) -> None:
        """Give freed memory back to the system. Other C libraries than glibc are left alone."""
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
        self._held = _resident()

    def give_back_if_grown(self, by: int = GROWN) -> None:
        """The same, if the process has grown by so many bytes since the last time: the memory is soon used again."""
        if _resident() - self._held >= by:
            self.give_back()


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


heap = Heap()


def _give_back(make_room: Callable[[], None]) -> None:
    make_room()
    gc.collect()
    heap.give_back()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
