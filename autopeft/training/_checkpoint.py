"""A run at one of its points, as a value: everything that its further course depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autopeft.exceptions import CacheError
from autopeft.modules import Injection
from autopeft.study import CurvePoint
from autopeft.training._dynamics._control import CohortDynamics
from autopeft.training._optimizer import FlatAdamW


class StaleCheckpointError(CacheError):
    """A checkpoint belongs to something else."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """A candidate after a step. Data order and dropout depend on seed and step alone, so they need no room here.

    Args:
        step: Optimizer steps done, >= 1.
        curve: Points so far; the last one stands at this step.
        counters: `Candidate`'s counts and times, by field name.
        peak_memory_bytes: So far; None if not measured.
        tensors: Trained values and buffers, unpadded, as `Injection.parts` names them.
        moments: First and second moment of every trained tensor, likewise.
        row_updates: `FlatAdamW.row_updates`.
        modules: `Injection.training_state`.
        dynamics: `CohortDynamics.state`.
    """

    step: int
    curve: tuple[CurvePoint, ...]
    counters: Mapping[str, float]
    peak_memory_bytes: int | None
    tensors: Mapping[str, Tensor]
    moments: Mapping[str, tuple[Tensor, Tensor]]
    row_updates: list[int]
    modules: list[dict[str, Any]]
    dynamics: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Tensors, numbers, strings and containers of them alone; `from_dict` is its inverse."""
        return {
            "step": self.step,
            "curve": [[p.step, p.epoch, p.wall_time_s, dict(p.metrics), p.n_examples] for p in self.curve],
            "counters": dict(self.counters),
            "peak_memory_bytes": self.peak_memory_bytes,
            "tensors": dict(self.tensors),
            "moments": {name: list(pair) for name, pair in self.moments.items()},
            "row_updates": self.row_updates,
            "modules": self.modules,
            "dynamics": self.dynamics,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Checkpoint:
        """Rebuild a checkpoint from `to_dict`."""
        curve = tuple(
            CurvePoint(step=step, epoch=epoch, wall_time_s=wall_time_s, metrics=metrics, n_examples=n_examples)
            for step, epoch, wall_time_s, metrics, n_examples in data["curve"]
        )
        moments = {name: (first, second) for name, (first, second) in data["moments"].items()}
        return cls(**{**data, "curve": curve, "moments": moments})


def capture(
    candidate: int,
    injection: Injection,
    optimizer: FlatAdamW,
    dynamics: CohortDynamics | None,
    **facts: Any,
) -> Checkpoint:
    """Copy what a candidate is now to the CPU.

    Args:
        candidate: Which one.
        injection: Its modules.
        optimizer: Of their tensors.
        dynamics: Of the cohort; None if there is none.
        facts: ``step``, ``curve``, ``counters`` and ``peak_memory_bytes``.
    """
    tensors, moments = {}, {}
    for name, tensor, part in injection.parts(candidate):
        tensors[name] = _copy(tensor, part)
        # A buffer has no gradient; what is trained has one from the first step on, also while it rests.
        if tensor.grad is not None:
            first, second = optimizer.moments(tensor)
            moments[name] = _copy(first, part), _copy(second, part)
    return Checkpoint(
        tensors=tensors,
        moments=moments,
        row_updates=optimizer.row_updates(candidate),
        modules=injection.training_state(candidate),
        dynamics={} if dynamics is None else dynamics.state(candidate),
        **facts,
    )


@torch.no_grad()
def restore(
    checkpoint: Checkpoint,
    candidate: int,
    injection: Injection,
    optimizer: FlatAdamW,
    dynamics: CohortDynamics | None,
) -> None:
    """Make a candidate what it was; the optimizer stands at the checkpoint's step already.

    Raises:
        StaleCheckpointError: If the checkpoint is not this candidate's; part of it may then be restored.
    """
    try:
        for name, tensor, part in injection.parts(candidate):
            _fill(tensor, part, checkpoint.tensors[name])
            if name in checkpoint.moments:
                for moment, saved in zip(optimizer.moments(tensor), checkpoint.moments[name], strict=True):
                    _fill(moment, part, saved)
        optimizer.set_row_updates(candidate, checkpoint.row_updates)
        injection.load_training_state(candidate, checkpoint.modules)
        if dynamics is not None:
            dynamics.load_state(candidate, checkpoint.dynamics)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise StaleCheckpointError(
            f"a checkpoint at step {checkpoint.step} does not fit its configuration: {error}."
        ) from error


def _copy(tensor: Tensor, part: tuple[int | slice, ...]) -> Tensor:
    return tensor.detach()[part].to("cpu", copy=True).contiguous()


def _fill(tensor: Tensor, part: tuple[int | slice, ...], saved: Tensor) -> None:
    target = tensor.detach()[part]
    if target.shape != saved.shape:
        raise ValueError(f"shape {tuple(saved.shape)} instead of {tuple(target.shape)}")
    target.copy_(saved)
