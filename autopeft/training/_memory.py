"""How much memory is free, and how much of it hidden states may take."""

from __future__ import annotations

import psutil
import torch

_SHARE = 0.25


def free_memory_bytes(device: torch.device) -> int:
    """Memory that is free now on a device; for the CPU, physical memory that is available without swapping."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def default_memory_cap(device: torch.device) -> int:
    """Bytes of hidden states to keep in memory: a quarter of what is free."""
    return int(free_memory_bytes(device) * _SHARE)
