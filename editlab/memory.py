"""How much memory is free, and what that allows."""

from __future__ import annotations

import psutil
import torch
from torch import Tensor

SPARE_SHARE = 0.25  # of a GPU's free memory that one spare copy may take


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be had on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def spare_copy(weight: Tensor) -> Tensor:
    """A copy to go back to: where the weight is, or in the host's pinned memory where a GPU has little left."""
    if weight.device.type == "cuda" and weight.nbytes > SPARE_SHARE * free_bytes(weight.device):
        return torch.empty_like(weight, device="cpu", pin_memory=True).copy_(weight)
    return weight.clone()
