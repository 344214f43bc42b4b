"""Which precision frozen weights are computed in: found out on the machine, not looked up."""

from __future__ import annotations

import functools
import time

import torch

from autopeft.exceptions import UnknownNameError
from autopeft.training._settings import PRECISIONS

#: bfloat16 is taken only when a product is clearly faster in it: emulated bfloat16 is slower than float32.
_MIN_SPEEDUP = 1.3


def select_precision(setting: str, device: torch.device | str = "cpu") -> torch.dtype:
    """Choose the data type of frozen weights and activations.

    Args:
        setting: ``"bfloat16"`` or ``"float32"`` are obeyed; ``"auto"`` takes bfloat16 where the device multiplies
            matrices faster in it: by capability on a GPU, by timing two small products once per process on a CPU.
        device: Where the backbone will be.

    Raises:
        UnknownNameError: If the setting is none of these.
    """
    if setting not in PRECISIONS:
        raise UnknownNameError("precision", setting, PRECISIONS)
    if setting != "auto":
        return torch.bfloat16 if setting == "bfloat16" else torch.float32
    kind = torch.device(device).type
    if kind == "cuda":
        # Compute capability 8 (Ampere) is the first with bfloat16 in hardware; older cards emulate it.
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float32
    if kind == "cpu":
        return torch.bfloat16 if bfloat16_speedup() >= _MIN_SPEEDUP else torch.float32
    return torch.float32


@functools.cache
def bfloat16_speedup() -> float:
    """How many times faster this CPU multiplies matrices in bfloat16 than in float32; best of several timings."""
    return _best_time_s(torch.float32) / _best_time_s(torch.bfloat16)


def _best_time_s(dtype: torch.dtype) -> float:
    left = torch.ones(256, 512, dtype=dtype)
    right = torch.ones(512, 512, dtype=dtype)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(15):
            start = time.perf_counter()
            torch.nn.functional.linear(left, right)
            best = min(best, time.perf_counter() - start)
    return best
