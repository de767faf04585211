"""How long work takes on a device, how much memory, how many launches, and what it cannot go below."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.products import Products
from editlab.model.fast.precision import in_full_float32
from editlab.model.model import EditableModel

LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")
COPIED_BYTES = {"cuda": 2**30, "cpu": 2**24}
PRODUCT_SIZE = {"cuda": 8192, "cpu": 512}


@dataclass(frozen=True)
class Timed:
    """What some runs took: the median, and of the last its result and the device's memory at its highest."""

    seconds: float
    result: Any
    peak_bytes: int | None  # None on a CPU


def timed(device: torch.device, work: Callable[[], Any], runs: int = 3, warm: int = 1) -> Timed:
    """`work` again and again, the first `warm` times not counted; the device has done its work at both readings."""
    seconds, peak, result = [], None, None
    for number in range(-warm, runs):
        result = None  # not in memory twice
        _settle(device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        start = time.perf_counter()
        result = work()
        _settle(device)
        if number >= 0:
            seconds.append(time.perf_counter() - start)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    return Timed(statistics.median(seconds), result, peak)


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Rates:
    """What a device was measured to do at most."""

    bytes_per_second: float  # read and written, in a copy of its memory
    multiplications_per_second: float  # with an addition each, in a product of large matrices

    @classmethod
    def of(cls, device: torch.device, dtype: torch.dtype = torch.float32) -> Rates:
        source = torch.randn(COPIED_BYTES[device.type] // 4, device=device)
        copy = torch.empty_like(source)
        copied = timed(device, partial(copy.copy_, source), runs=10, warm=3).seconds
        size = PRODUCT_SIZE[device.type]
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        with in_full_float32():
            multiplied = timed(device, lambda: a @ b, runs=5, warm=2).seconds
        return cls(2 * COPIED_BYTES[device.type] / copied, size**3 / multiplied)

    def floor(self, model: EditableModel, needed: Sequence[Products], bytes_besides: float = 0) -> float:
        """Seconds that these products take at least: each pass reads its weights once, and multiplies by them."""
        size = model.hf.get_output_embeddings().weight.element_size()
        seconds = bytes_besides / self.bytes_per_second
        for some in needed:
            reading = size * some.weights_read(model) / self.bytes_per_second
            seconds += max(reading, some.multiplications(model) / self.multiplications_per_second)
        return seconds


def launches(device: torch.device, work: Callable[[], Any]) -> int:
    """How often the host launches something while it works: kernels and graphs; on a CPU, operators that it calls."""
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiled:
        work()
        _settle(device)
    averages = profiled.key_averages()
    return sum(
        each.count for each in averages if each.key in LAUNCHES or (not on_gpu and each.key.startswith("aten::"))
    )
