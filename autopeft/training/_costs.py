"""Measured costs: time, memory, throughput. What cannot be measured is None."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


class PeakMemory:
    """Peak memory between `start` and `read`.

    On a GPU what torch allocated there; on Linux the process's resident memory (the kernel's high-water mark, reset at
    the start; where it cannot be reset, the largest of the samples taken); elsewhere nothing is measured.

    Args:
        device: Where the training runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sampled: int | None = None
        self._reset = False

    def start(self) -> None:
        """Begin to measure."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            return
        self._sampled = None
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self._reset = True
        except OSError:
            self._reset = False
        self.sample()

    def sample(self) -> None:
        """Take a sample where the kernel's high-water mark cannot be used."""
        if not self._reset and self._device.type == "cpu":
            now = _status_bytes("VmRSS")
            if now is not None:
                self._sampled = max(now, self._sampled or 0)

    def read(self) -> int | None:
        """Peak in bytes; None if it cannot be measured here."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        if self._device.type != "cpu":
            return None
        self.sample()
        return _status_bytes("VmHWM") if self._reset else self._sampled


def larger(one: int | None, other: int | None) -> int | None:
    """The larger of two sizes, of which either may be unknown."""
    return max((size for size in (one, other) if size is not None), default=None)


def _status_bytes(field: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what was queued, so that a clock read means something."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_name(device: torch.device) -> str:
    """The device in words: a GPU's product name, or the processor's architecture and the threads in use."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{device.type} {platform.machine()} ({_processor()}), {torch.get_num_threads()} threads"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"
