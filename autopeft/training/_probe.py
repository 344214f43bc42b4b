"""What training costs on this machine, measured on a few steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autopeft.training._batches import Batch, evaluation_batches
from autopeft.training._cohort import Cohort
from autopeft.training._costs import synchronize
from autopeft.training._forward import CohortForward
from autopeft.training._inputs import ResidentSplit

_BATCHES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Measured cost of one configuration, per candidate.

    Args:
        train_s_per_example: Seconds of training per example and epoch.
        evaluation_s_per_example: Seconds of evaluation per example.
        peak_memory_bytes: Of the whole cohort, at its longest batch; None if it cannot be measured here.
    """

    train_s_per_example: float
    evaluation_s_per_example: float
    peak_memory_bytes: int | None


def probe_cohort(
    cohort: Cohort, forward: CohortForward, train: ResidentSplit, search: ResidentSplit
) -> tuple[float, float]:
    """Time a few training steps and evaluation batches, of short and long examples.

    The longest batch is among them, so that memory is known to suffice.

    Args:
        cohort: Injected candidates; their parameters are changed.
        forward: Their forward pass.
        train: Training split.
        search: Search split.

    Returns:
        Seconds per training example and per evaluated example, per candidate.
    """
    active = cohort.active
    seeds = [item.job.seed for item in cohort.candidates]
    epochs = [cohort.plan.epoch(seed, 0) for seed in seeds]
    chosen = _spread(epochs[0])
    train_s = 0.0
    for repetition in (False, True):
        start = time.perf_counter()
        for i in chosen:
            cohort.step(0, [epoch[i] for epoch in epochs], active)
        synchronize(train.device)
        # The first round pays for memory pools and the kernels' preparation.
        train_s = time.perf_counter() - start if repetition else train_s
    train_tokens = sum(len(epochs[0][i].rows) * epochs[0][i].length for i in chosen)
    n_train = sum(len(batch.rows) for batch in epochs[0])
    batches = evaluation_batches(
        search.lengths, np.arange(len(search)), max(1, cohort.evaluation_tokens // len(active))
    )
    few = [batches[i] for i in _spread(batches)]
    start = time.perf_counter()
    forward.predict_batches(search, few, active)
    evaluation_s = time.perf_counter() - start
    evaluation_tokens = sum(len(batch.rows) * batch.length for batch in few)
    n_evaluation_tokens = sum(len(batch.rows) * batch.length for batch in batches)
    return (
        train_s * cohort.plan.tokens_per_epoch / train_tokens / n_train / len(active),
        evaluation_s * n_evaluation_tokens / evaluation_tokens / len(search) / len(active),
    )


def _spread(batches: Sequence[Batch]) -> list[int]:
    """A few indices of batches, from short to the longest, weighted as their lengths occur."""
    order = sorted(range(len(batches)), key=lambda i: len(batches[i].rows) * batches[i].length)
    n = min(_BATCHES, len(order))
    return [order[round((i + 1) * len(order) / n) - 1] for i in range(n)]
