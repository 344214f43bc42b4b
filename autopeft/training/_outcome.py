"""From a trained candidate to measurements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from autopeft.exceptions import DivergenceError
from autopeft.study import SEARCH_SPLIT, Failure, Measurement, Rung
from autopeft.training._cohort import Candidate
from autopeft.training._costs import larger
from autopeft.training._data import TaskData
from autopeft.training._forward import to_predictions
from autopeft.training._job import Outcome
from autopeft.training._target_scale import TargetScale


def make_outcome(
    candidate: Candidate,
    task: TaskData,
    *,
    n_steps: int,
    report_logits: Tensor | None,
    scale: TargetScale | None,
    peak_memory_bytes: int | None,
    environment: Mapping[str, Any],
    state: dict[str, Tensor] | None,
    known_costs: Mapping[str, float] | None = None,
) -> Outcome:
    """Collect what a run showed.

    The score is that of the last evaluation, never the best one: the search split chooses nothing within a run.

    Args:
        candidate: The run.
        task: Metrics and targets.
        n_steps: Optimizer steps of the whole run.
        report_logits: Outputs on the report split, shape (n, labels); None if it was not asked for.
        scale: Unit of regression outputs; None for classification.
        peak_memory_bytes: Of the cohort; None if not measured.
        environment: Where the numbers come from.
        state: Trained tensors to keep; None keeps none.
        known_costs: Closed forms of the configuration that stand among the costs.
    """
    curve = tuple(candidate.curve)
    if candidate.failure is not None:
        return Outcome(failure=candidate.failure, curve=curve)
    last = curve[-1]
    ended_at = Rung(step=last.step, n_steps=n_steps, n_examples=last.n_examples) if candidate.is_stopped_early else None
    job = candidate.job
    facts: dict[str, Any] = {
        "fidelity": job.fidelity,
        "rung": ended_at,
        "seed": job.seed,
        "costs": _costs(candidate, larger(candidate.peak_memory_bytes, peak_memory_bytes)) | dict(known_costs or {}),
        "environment": dict(environment),
        "curve": curve,
    }
    measurements = []
    for split in job.splits:
        if split == SEARCH_SPLIT:
            metrics = {name: value for name, value in last.scores.items() if name != "train_loss"}
            measurements.append(Measurement(split=split, metrics=metrics, **facts))
        elif report_logits is not None:
            try:
                predicted = to_predictions(report_logits, scale)
            except DivergenceError as error:
                message = f"Training diverged: on the report split {error}"
                return Outcome(failure=Failure(reason="divergence", message=message), curve=curve)
            metrics = task.evaluate(predicted, task.report.targets)
            predictions = tuple(predicted.tolist())
            measurements.append(Measurement(split=split, metrics=metrics, predictions=predictions, **facts))
    return Outcome(
        measurements=tuple(measurements),
        curve=curve,
        is_stopped_early=candidate.is_stopped_early,
        state=state if state is None or scale is None else scale.fold(state),
    )


def _costs(candidate: Candidate, peak_memory_bytes: int | None) -> dict[str, float]:
    costs: dict[str, float] = {"wall_time_s": candidate.wall_time_s}
    if peak_memory_bytes is not None:
        costs["peak_memory_bytes"] = float(peak_memory_bytes)
    if candidate.train_time_s > 0:
        costs["examples_per_s"] = candidate.examples / candidate.train_time_s
        costs["tokens_per_s"] = candidate.tokens / candidate.train_time_s
    return costs
