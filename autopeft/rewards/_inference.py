"""What a deployed candidate costs: time and memory of its forward pass after merging."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch

from autopeft.exceptions import UsageError
from autopeft.rewards._base import BuiltinReward, RewardValue
from autopeft.rewards._deployed import deployed, plain_outputs
from autopeft.rewards._live_bytes import LiveBytes, tensor_bytes
from autopeft.training import ResidentSplit, TrainedCandidate

_PAPER = "our own; merging: LoRA, arXiv 2106.09685"


@dataclass(frozen=True, kw_only=True)
class Latency(BuiltinReward):
    """Seconds per text of the deployed candidate, one text at a time, on one thread.

    Modules that are linear in the weights are merged first. A few texts of the split, of lengths from its shortest to
    its longest, pass one by one through transformers' own forward pass, once to warm up and then several times; the
    value is the median over these passes. On a CPU torch computes with one thread meanwhile.

    Args:
        texts: Texts per pass, >= 1.
        repeats: Timed passes, >= 1.
    """

    texts: int = 16
    repeats: int = 5

    name: ClassVar[str] = "latency_s"
    unit: ClassVar[str] = "s"
    summary: ClassVar[str] = "seconds per text after merging, one at a time, one thread, median of 5 passes of 16 texts"
    source: ClassVar[str] = _PAPER
    cost: ClassVar[str] = "6 passes of 16 texts, one at a time"
    is_cost: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("texts", "repeats"):
            if getattr(self, name) < 1:
                raise UsageError(f"latency_s.{name} must be at least 1, but got {getattr(self, name)}.")

    def measure(self, candidate: TrainedCandidate) -> RewardValue:
        """Time the passes."""
        resident = candidate.resident(candidate.data)
        rows = spread_rows(resident, self.texts)
        with deployed(candidate) as deployment, _one_thread(candidate.backbone.device):
            seconds = [_timed_pass(candidate, resident, rows) for _ in range(self.repeats + 1)][1:]
        details = {"merged_share": deployment.merged_share, "fastest": min(seconds) / len(rows)}
        return RewardValue(value=float(np.median(seconds)) / len(rows), details=details)


@dataclass(frozen=True, kw_only=True)
class InferencePeakMemory(BuiltinReward):
    """Bytes that the deployed candidate needs: weights, modules that stay beside them, and activations at their peak.

    Activations are counted operation by operation for one batch of the split's longest texts, so that the number is
    exact and repeats; the process's resident memory would hold what training left behind.

    Args:
        batch_size: Texts of the batch, >= 1.
    """

    batch_size: int = 16

    name: ClassVar[str] = "inference_peak_memory_bytes"
    unit: ClassVar[str] = "bytes"
    summary: ClassVar[str] = "weights and peak activations after merging, one batch of the 16 longest texts"
    source: ClassVar[str] = _PAPER
    cost: ClassVar[str] = "one batch"
    is_cost: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"inference_peak_memory_bytes.batch_size must be at least 1, but got {self.batch_size}.")

    def measure(self, candidate: TrainedCandidate) -> RewardValue:
        """Count what one batch needs."""
        resident = candidate.resident(candidate.data)
        rows = np.argsort(-resident.lengths, kind="stable")[: self.batch_size]
        model = candidate.backbone.model
        with deployed(candidate) as deployment:
            with torch.inference_mode(), LiveBytes([*model.parameters(), *model.buffers()]) as live:
                plain_outputs(candidate, resident, rows)
            weights = tensor_bytes(model) + deployment.added_bytes
        details = {"weights": float(weights), "activations": float(live.peak)}
        return RewardValue(value=float(weights + live.peak), details=details)


def spread_rows(resident: ResidentSplit, n: int) -> npt.NDArray[np.int64]:
    """Up to n examples, their lengths evenly spread from the shortest to the longest."""
    order = np.argsort(resident.lengths, kind="stable")
    return np.asarray(order[np.linspace(0, len(order) - 1, min(n, len(order))).round().astype(np.int64)])


def _timed_pass(candidate: TrainedCandidate, resident: ResidentSplit, rows: npt.NDArray[np.int64]) -> float:
    """Seconds for all rows, one at a time."""
    _synchronize(candidate.backbone.device)
    start = time.perf_counter()
    for row in rows:
        plain_outputs(candidate, resident, np.array([row]))
    _synchronize(candidate.backbone.device)
    return time.perf_counter() - start


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """Within the block torch computes with one thread on the CPU, so that machines and runs can be compared."""
    threads = torch.get_num_threads()
    if device.type == "cpu" and threads != 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
