"""A device that failed: after some errors of a GPU nothing is computed on it any more until its process has ended."""

from __future__ import annotations

import torch

from editlab.model.memory import ran_out

FINAL = ("CUDA error", "HIP error")  # in the words of torch, whatever the exception's class


def is_final(error: BaseException) -> bool:
    """Whether this error, or one that it came of, ends all work on the device; to run out of memory does not."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        known = isinstance(cause, torch.AcceleratorError) or (
            isinstance(cause, RuntimeError) and any(words in str(cause) for words in FINAL)
        )
        if known and not ran_out(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def is_of_device(error: BaseException) -> bool:
    """Whether memory ran out or the device failed for good, whatever code was being run."""
    return ran_out(error) or is_final(error)


def reason_of(error: BaseException) -> str:
    """The first line of an error, or the name of its class; torch's further lines are advice for developers."""
    return (str(error).splitlines() or [""])[0].strip() or type(error).__name__
