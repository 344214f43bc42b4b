"""The pruners' own rules: given what all trials show at a rung, does this one stop?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from autopeft.pruners._calibration import Ceiling
from autopeft.pruners._values import Array, RungTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a rule says.

    Args:
        stop: Whether the trial should end.
        why: One sentence.
    """

    stop: bool
    why: str


class Rule(Protocol):
    """Judges one trial at one rung; a function of its arguments."""

    def judge(self, table: RungTable, row: int) -> Verdict:
        """Judge the trial in a row of the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParetoRule:
    """Stops what cannot reach the front: even the best it can still become is dominated.

    A trial's ceiling is a one-sided prediction interval of each measured objective at its end, from the completed
    trials (`Ceiling`): the noise of the rung, and what trials gain after it, are in its width. It stops if a completed
    trial that costs no more, and is ahead at this rung too, ended above the ceiling in every measured objective. So a
    cheap trial is compared with cheap ones alone, and nobody is stopped for a better but dearer one, nor for one that
    breaks a constraint.

    Args:
        risk: Share of trials that may end above their ceiling, in (0, 0.5). docs/fidelity.md says what it saves and
            loses in replayed searches.
    """

    risk: float = 0.1

    def judge(self, table: RungTable, row: int) -> Verdict:
        measured = ~table.is_exact
        done = table.is_complete
        ceiling = np.array(
            [
                Ceiling.fit(table.here[done, j], table.end[done, j], risk=self.risk).at(float(table.here[row, j]))
                for j in np.flatnonzero(measured)
            ]
        )
        ahead = (table.here[:, measured] >= table.here[row, measured]).all(axis=1)
        rivals = done & table.is_allowed & table.no_dearer(row) & ahead
        above = np.zeros(len(rivals), dtype=np.bool_)
        above[rivals] = (table.end[np.ix_(rivals, measured)] > ceiling).all(axis=1)
        best = _natural(table, measured, ceiling)
        if not above.any():
            return Verdict(stop=False, why=f"it may reach {best}, which no completed trial of its cost is better than")
        rival = int(np.flatnonzero(above)[0])
        reached = _natural(table, measured, table.end[rival, measured])
        return Verdict(
            stop=True,
            why=f"it can reach {best} at most, but trial {table.numbers[rival]} reached {reached} and costs no more",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MedianRule:
    """Stops what is worse than the median at this rung, as Google Vizier's rule does (Golovin et al., KDD 2017).

    Compared are the first measured objective and the trials of similar cost or less, finished or not.

    Args:
        factor: Similar is at most so many times the cost, >= 1.
        min_rivals: With fewer of them, nothing stops.
    """

    factor: float = 1.25
    min_rivals: int = 4

    def judge(self, table: RungTable, row: int) -> Verdict:
        j = int(np.flatnonzero(~table.is_exact)[0])
        rivals = table.no_dearer(row, self.factor)
        if rivals.sum() < self.min_rivals:
            return Verdict(stop=False, why=f"only {int(rivals.sum())} trials of its cost have come to this rung")
        median = float(np.median(table.here[rivals, j]))
        stop = bool(table.here[row, j] < median)
        objective = table.objectives[j]
        own, place = f"{objective.sign * table.here[row, j]:.4g}", "worse" if stop else "not worse"
        return Verdict(
            stop=stop,
            why=f"its {objective.name} {own} is {place} than {objective.sign * median:.4g}, the median of "
            f"{int(rivals.sum())} trials of its cost at this rung",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MoAshaRule:
    """Lets the best of each rung go on: multi-objective asynchronous successive halving (arXiv 2106.12639).

    All trials that have come to a rung are sorted into fronts, and within a front by an epsilon-net, which takes the
    trial farthest from those taken before. The first n / eta of n go on.

    Args:
        eta: Reduction factor, >= 2.
    """

    eta: int = 3

    def judge(self, table: RungTable, row: int) -> Verdict:
        n = len(table.numbers)
        place = table.order.index(row)
        n_kept = max(1, n // self.eta)
        stop = n >= self.eta and place >= n_kept
        return Verdict(stop=stop, why=f"it is number {place + 1} of {n} trials at this rung, and {n_kept} go on")


def _natural(table: RungTable, chosen: npt.NDArray[np.bool_], values: Array) -> str:
    """All-maximise values of some objectives in words."""
    items = [item for item, is_chosen in zip(table.objectives, chosen, strict=True) if is_chosen]
    return ", ".join(f"{item.name} {item.sign * value:.4g}" for item, value in zip(items, values, strict=True))
