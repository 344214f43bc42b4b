"""Uniform random search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autopeft.configuration import BoundSpace, OptionValue
from autopeft.objectives import Constraint, Objective
from autopeft.samplers._base import Source, Suggestion
from autopeft.samplers._candidates import point_source
from autopeft.samplers._history import Outline
from autopeft.samplers._points import Point
from autopeft.study import Fidelity, Trial


class RandomSampler:
    """Feasible and new points as the space draws them; neither what was measured matters nor how many are asked for.

    Asking for n at once gives what asking n times gives, so that searches with many workers try what one worker tries.

    Args:
        space: What is searched.
        objectives: What is optimised; ignored.
        seed: Of the study.
        fidelity: Of the study's search trials.
        constraints: Those on known costs are kept.
        candidates: The only points that may be proposed; None for all.
    """

    def __init__(
        self,
        *,
        space: BoundSpace,
        objectives: tuple[Objective, ...],
        seed: int,
        fidelity: Fidelity,
        constraints: tuple[Constraint, ...] = (),
        candidates: Sequence[Mapping[str, OptionValue]] | None = None,
    ) -> None:
        self._points = point_source(space, constraints, candidates)
        self._seed = seed
        self._outline = Outline(seed=seed, fidelity=fidelity)

    def ask(self, trials: Sequence[Trial], n: int) -> list[Suggestion]:
        history = self._outline.update(trials)
        taken = set(history.taken)
        points: list[Point] = []
        for ahead in range(n):
            found = self._points.fresh(history.generator(self._seed, ahead=ahead), 1, taken)
            if not found:
                break
            points += found
            taken.add(found[0].fingerprint)
        return [Suggestion(params=point.params, notes={"source": Source.RANDOM.value}) for point in points]
