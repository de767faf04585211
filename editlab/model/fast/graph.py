"""Work launched on a GPU as one CUDA graph instead of kernel by kernel, which costs more than what small kernels do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

import torch

from editlab.model.memory import ran_out
from editlab.model.model import EditableModel

T = TypeVar("T")

log = logging.getLogger(__name__)


def can_replay(model: EditableModel) -> bool:
    """Whether the model's searches replay CUDA graphs: they are wanted, and all of it is on one GPU."""
    return model.graphs and model.device.type == "cuda" and not model.is_split


def captured(model: EditableModel, work: Callable[[], T]) -> Replayed[T] | None:
    """The work as a graph, in the memory of the model's last one, which must not be called any more.

    None where it cannot be captured, and a warning says why. If that is for want of memory, only this search goes on
    without a graph, and the last one's memory is given up; else none of the model's searches tries again.
    """
    try:
        graph = Replayed(work, model.device, model.last_graph)
    except RuntimeError as error:
        model.graphs, model.last_graph = ran_out(error), None
        which = "a search goes" if model.graphs else "searches go"
        log.warning("%s: %s on without CUDA graphs: %s", model.name, which, str(error).partition("\n")[0])
        return None
    model.last_graph = graph
    return graph


class Replayed(Generic[T]):
    """Captures the kernels of some work; each call runs them again and gives the same tensors with new numbers.

    The work must have run once before, so that all libraries are set up. It must not wait for the device, the tensors
    that it reads must stay at their addresses, and leaves that it differentiates by must be its own: autograd would
    wait for the stream on which older ones were first used.
    """

    def __init__(self, work: Callable[[], T], device: torch.device, before: Replayed[Any] | None = None) -> None:
        """`before`: a graph that is not called any more, and whose memory this one takes over.

        For that it also takes over the stream, since memory is used again only on the stream that it came from.
        """
        self._graph = torch.cuda.CUDAGraph()
        self._stream: torch.cuda.Stream = torch.cuda.Stream(device) if before is None else before._stream
        pool = None if before is None else before._graph.pool()
        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._stream):  # `torch.cuda.graph` would empty the allocator's cache for every edit
            self._graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                self._results = work()
            except BaseException:
                with suppress(RuntimeError):  # that the capture failed; why is told by what is raised
                    self._graph.capture_end()
                raise
            self._graph.capture_end()
        torch.cuda.current_stream(device).wait_stream(self._stream)

    def __call__(self) -> T:
        self._graph.replay()
        return self._results
