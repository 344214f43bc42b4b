"""Which examples form which batch: bucketed by length, shuffled by seed, with the same shapes for every seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: A bucket holds at least this many batches, and grows while its longest example is at most so much longer than its
#: shortest.
_MIN_BATCHES = 2
_MAX_STRETCH = 1.15


#: Indices of examples within a split, shape (n,).
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """One batch of examples.

    Args:
        rows: Indices of its examples within the split, shape (b,).
        length: Tokens to pad each of them to.
    """

    rows: npt.NDArray[np.int64]
    length: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Bucket:
    rows: npt.NDArray[np.int64]
    length: int


class BatchPlan:
    """The batches of every epoch and seed over one subset of a split.

    Examples are ranked by length and cut into buckets of a few batches. Within its bucket the seed shuffles which
    examples meet; the order of the buckets' batches changes from epoch to epoch but is the same for every seed. So
    step s of every run has the same shape, whatever the seed: runs with different seeds can train as one cohort and get
    exactly the batches, paddings and dropout masks that they get alone.

    Args:
        lengths: Tokens per example of the split, shape (n,).
        n_examples: The first so many examples of the split are used, in [1, n].
        batch_size: Examples per batch; one batch per epoch is smaller if it does not divide their number.
    """

    def __init__(self, lengths: npt.NDArray[np.int64], n_examples: int, batch_size: int) -> None:
        self.batch_size = batch_size
        self._buckets = _cut(lengths, np.argsort(lengths[:n_examples], kind="stable"), batch_size)
        self.steps_per_epoch = sum(-(-len(bucket.rows) // batch_size) for bucket in self._buckets)
        self.tokens_per_epoch = sum(len(bucket.rows) * bucket.length for bucket in self._buckets)

    def epoch(self, seed: int, epoch: int) -> list[Batch]:
        """The batches of an epoch, in order.

        Args:
            seed: Of the run.
            epoch: Zero-based.
        """
        shuffle = np.random.default_rng([seed, epoch, 1])
        batches = []
        for bucket in self._buckets:
            rows = shuffle.permutation(bucket.rows)
            batches += [
                Batch(rows=rows[start : start + self.batch_size], length=bucket.length)
                for start in range(0, len(rows), self.batch_size)
            ]
        order = np.random.default_rng([epoch, 2]).permutation(len(batches))
        return [batches[i] for i in order]


def _cut(lengths: npt.NDArray[np.int64], ranked: npt.NDArray[np.int64], batch_size: int) -> list[_Bucket]:
    buckets: list[_Bucket] = []
    # The short batch goes to the shortest examples, where any bucket wastes least.
    first = len(ranked) % batch_size
    start = 0
    while start < len(ranked):
        stop = min(start + _MIN_BATCHES * batch_size + (first if start == 0 else 0), len(ranked))
        shortest = lengths[ranked[start]]
        while (
            stop < len(ranked) and lengths[ranked[min(stop + batch_size, len(ranked)) - 1]] <= shortest * _MAX_STRETCH
        ):
            stop = min(stop + batch_size, len(ranked))
        if 0 < len(ranked) - stop < _MIN_BATCHES * batch_size:
            # A last bucket of a single batch would hold the same examples together in every epoch.
            stop = len(ranked)
        buckets.append(_Bucket(rows=np.sort(ranked[start:stop]), length=int(lengths[ranked[stop - 1]])))
        start = stop
    return buckets


def evaluation_batches(
    lengths: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], max_tokens_per_batch: int
) -> list[Batch]:
    """Batches without a seed: examples by length, as many as fit into a number of padded tokens (at least one).

    Args:
        lengths: Tokens per example of the split, shape (n,).
        rows: The examples wanted.
        max_tokens_per_batch: Upper limit of rows times length.
    """
    ranked = rows[np.argsort(lengths[rows], kind="stable")]
    batches: list[Batch] = []
    start = 0
    while start < len(ranked):
        stop = start + 1
        while stop < len(ranked) and (stop + 1 - start) * lengths[ranked[stop]] <= max_tokens_per_batch:
            stop += 1
        batches.append(Batch(rows=ranked[start:stop], length=int(lengths[ranked[stop - 1]])))
        start = stop
    return batches


def rung_rows(n_examples: int, n_wanted: int | None) -> Rows | None:
    """The examples that are scored at rungs: the same for every run, a fair sample however the split is ordered.

    Args:
        n_examples: Of the split.
        n_wanted: How many of them.

    Returns:
        Ascending; None if all are to be scored.
    """
    if n_wanted is None or n_wanted >= n_examples:
        return None
    return np.sort(np.random.default_rng([n_examples, 3]).permutation(n_examples)[:n_wanted])


def split_batch(batch: Batch, n_parts: int) -> Sequence[Batch]:
    """Cut a batch into at most `n_parts` micro-batches of the same padded length, in order."""
    return [Batch(rows=part, length=batch.length) for part in np.array_split(batch.rows, n_parts) if len(part)]
