"""Work launched on a GPU as one CUDA graph instead of kernel by kernel; optional, since no gain is proven."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, TypeVar

import torch

from editlab.model.model import EditableModel

T = TypeVar("T")

log = logging.getLogger(__name__)


def can_replay(model: EditableModel) -> bool:
    """Whether the model's searches should replay CUDA graphs, and its device supports them."""
    if model.graphs and model.device.type != "cuda":
        log.warning("%s runs on %s, which has no CUDA graphs: it searches without", model.name, model.device.type)
    return model.graphs and model.device.type == "cuda" and not model.is_split


class Replayed(Generic[T]):
    """Captures the kernels of some work; each call runs them again and gives the same tensors with new numbers.

    The work must have run once before, so that all libraries are set up. It must not wait for the device, and the
    tensors that it reads must stay at their addresses.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # `torch.cuda.graph` would empty the allocator's cache for every edit
            self._graph.capture_begin(capture_error_mode="thread_local")
            try:
                self._results = work()
            finally:
                self._graph.capture_end()
        torch.cuda.current_stream().wait_stream(stream)

    def __call__(self) -> T:
        self._graph.replay()
        return self._results
