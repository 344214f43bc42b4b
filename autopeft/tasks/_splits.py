"""Seeded, stratified splits that keep identical texts together."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from autopeft.tasks._task import Split

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """Labelled rows before they are split.

    Args:
        texts: First text of each row.
        pairs: Second text of each row; None for single texts.
        targets: Class indices (int64) or values (float64).
    """

    texts: Sequence[str]
    pairs: Sequence[str] | None
    targets: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.texts)

    def keys(self) -> list[str]:
        """Equal for rows that say the same, up to case and white space."""
        if self.pairs is None:
            return [normalize(text) for text in self.texts]
        return [f"{normalize(a)}\t{normalize(b)}" for a, b in zip(self.texts, self.pairs, strict=True)]

    def take(self, rows: Sequence[int] | IntArray) -> Split:
        """The rows as a split, in the order given."""
        return Split(
            texts=tuple(self.texts[row] for row in rows),
            pairs=None if self.pairs is None else tuple(self.pairs[row] for row in rows),
            targets=self.targets[np.asarray(rows, dtype=np.int64)].copy(),
        )


def normalize(text: str) -> str:
    """Fold case and white space away; texts that are equal then must not stand in two splits."""
    return " ".join(text.casefold().split())


def strata_of(targets: npt.NDArray[Any], n_bins: int = 10) -> IntArray:
    """Classes, or for values the quantile bin, so that both can be stratified alike."""
    if targets.dtype == np.int64:
        return targets
    edges = np.quantile(targets, np.linspace(0, 1, n_bins + 1)[1:-1])
    return np.searchsorted(edges, targets, side="right").astype(np.int64)


def stratified_order(strata: IntArray, rng: np.random.Generator) -> IntArray:
    """Order rows at random such that every prefix has the strata in proportion.

    The i-th of the n_c rows of stratum c, in random order, is put at :math:`(i + u) / n_c`, u uniform in [0, 1): any
    prefix holds each stratum's share to within about one row, and shorter prefixes are part of longer ones.

    Args:
        strata: Stratum of each row (n).
        rng: Source of randomness.

    Returns:
        A permutation of the rows (n).
    """
    position = np.empty(len(strata))
    for stratum in np.unique(strata):
        rows = rng.permutation(np.flatnonzero(strata == stratum))
        position[rows] = (np.arange(len(rows)) + rng.random(len(rows))) / len(rows)
    return np.argsort(position, kind="stable")


def carve(
    examples: Examples, sizes: Sequence[int], *, seed: int, exclude: Collection[str] = ()
) -> tuple[list[IntArray], IntArray]:
    """Carve held-out parts from the rows, and order what remains for training.

    Rows with the same text form a group; a group stands in one part only. Held-out parts take one row per group, so
    nothing is counted twice when scoring; what remains keeps its repetitions. One group of each class is kept back, so
    that every class can be learned.

    Args:
        examples: The rows.
        sizes: Number of rows wanted in each held-out part.
        seed: Seed of the split.
        exclude: Keys (see `Examples.keys`) of rows to leave out altogether, because another split has them.

    Returns:
        The rows of each held-out part (fewer where there are not enough groups), and the remaining rows.
    """
    excluded = set(exclude)
    strata = strata_of(examples.targets)
    groups: dict[str, list[int]] = {}
    for row, key in enumerate(examples.keys()):
        if key not in excluded:
            groups.setdefault(key, []).append(row)
    members = list(groups.values())
    rng = np.random.default_rng([seed, 0])
    order = stratified_order(np.array([strata[rows[0]] for rows in members], dtype=np.int64), rng)
    is_class = examples.targets.dtype == np.int64
    kept_back = {int(strata[members[index][0]]): int(index) for index in order} if is_class else {}
    reserved = set(kept_back.values())
    candidates = [int(index) for index in order if index not in reserved]

    parts, start = [], 0
    for size in sizes:
        parts.append(np.array([members[index][0] for index in candidates[start : start + size]], dtype=np.int64))
        start += size
    rest = np.array(
        sorted(row for index in [*candidates[start:], *kept_back.values()] for row in members[index]), dtype=np.int64
    )
    return parts, rest[stratified_order(strata[rest], np.random.default_rng([seed, 1]))]
