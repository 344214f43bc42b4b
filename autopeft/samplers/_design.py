"""Points to begin with: a few that experts would try, then an even cover of what matters most."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import numpy as np
import numpy.typing as npt

from autopeft.configuration import LINEAR_PARTS, BoundSpace, Configuration, ModuleSpec, Site
from autopeft.samplers._encoding import tuned_layers
from autopeft.samplers._express import express
from autopeft.samplers._points import Point, PointSource

Array = npt.NDArray[np.float64]

#: Feasible draws among which the one nearest to a stratum is chosen.
_POOL = 256
#: A hand-made configuration is used if the space misses at most this share of its summed log sizes.
_TOLERANCE = 0.1
#: Powers of the inverse of the root of x^4 = x + 1: the additive recurrence that covers the cube most evenly.
_RECURRENCE = 1.2207440846057596 ** -np.arange(1.0, 4.0)


class Design:
    """The first points of a search, and the fallback when no surrogate can be fitted.

    First come configurations that are strong by experience, as far as the space can say them: LoRA of rank 1 on
    queries and values (the cheap end), LoRA on every linear map at half the budget, parallel adapters at a quarter of
    it, LoRA on every linear map at that quarter; learning rates as they suit such sizes. What the baselines have
    tried already is left out. Then every point is, among `_POOL` uniform draws, nearest to the next
    element of a low-discrepancy sequence over (log cost, number of tuned layers, log learning rate), each scaled to
    what the draws reach.

    Args:
        points: The space.
        seed: Of the study; shifts the sequence.
    """

    def __init__(self, points: PointSource, *, seed: int) -> None:
        self._points = points
        self._seed = seed
        self._shift = np.random.default_rng(np.random.SeedSequence([seed, 0])).random(3)
        self._hand_made: tuple[Point, ...] | None = None

    def propose(self, index: int, rng: np.random.Generator, taken: Collection[str]) -> Point | None:
        """The design's point for a position.

        Args:
            index: Number of search trials before it, unfinished ones included.
            rng: Draws the candidates.
            taken: Fingerprints that must not come back.

        Returns:
            The point; None if the space is exhausted.
        """
        strong = self._strong()
        if index < len(strong) and strong[index].fingerprint not in taken:
            return strong[index]
        pool = self._points.pool(rng, _POOL, taken) or self._points.fresh(rng, 1, taken)
        if not pool:
            return None
        stratum = (self._shift + (index + 1) * _RECURRENCE) % 1.0
        distance = np.square(_coordinates(pool) - stratum).sum(axis=1)
        return pool[int(distance.argmin())]

    def _strong(self) -> tuple[Point, ...]:
        """Hand-made points that the space can say, found once."""
        if self._hand_made is None:
            found: dict[str, Point] = {}
            for wanted in _experience(self._points.space):
                answer = express(self._points, wanted, seed=self._seed)
                size = sum(math.log2(1 + (item.module.size or 1)) for item in wanted.placements)
                if answer is not None and (self._points.is_finite or answer.error <= _TOLERANCE * size):
                    found.setdefault(answer.point.fingerprint, answer.point)
            self._hand_made = tuple(found.values())
        return self._hand_made


def _coordinates(pool: Sequence[Point]) -> Array:
    """(log cost, tuned layers, log learning rate) of each point (n x 3), each scaled to [0, 1] over the points."""
    raw = np.array(
        [
            (
                math.log(max(point.trainable_parameters, 1)),
                len(tuned_layers(point.configuration)),
                math.log(point.configuration.learning_rate),
            )
            for point in pool
        ]
    )
    low, span = raw.min(axis=0), np.ptp(raw, axis=0)
    return np.asarray((raw - low) / np.where(span > 0, span, 1.0))


def _experience(space: BoundSpace) -> list[Configuration]:
    """Configurations that are strong by experience and fit the budget (1 % of the backbone if there is none)."""
    options = {rule.type: rule.fixed_options for rule in space.space.modules}
    cap = space.budget if space.budget is not None else space.shapes.parameters // 100

    def build(type_: str, parts: tuple[str, ...], rate: float) -> Callable[[int], Configuration]:
        def at_size(size: int) -> Configuration:
            spec = ModuleSpec(type=type_, size=size, options=options[type_])
            pairs = [
                (Site(layer=index, part=part), spec)
                for index, layer in enumerate(space.shapes.layers)
                for part in parts
                if part in layer.linears or part not in LINEAR_PARTS
            ]
            return Configuration.make(pairs, learning_rate=rate)

        return at_size

    wanted: list[Configuration | None] = []
    if "lora" in options:
        wanted.append(_largest(space, build("lora", ("q", "v"), 5e-3), 1, cap))
        wanted.append(_largest(space, build("lora", LINEAR_PARTS, 3e-3), space.shapes.hidden_size, cap // 2))
    if "parallel_adapter" in options:
        wanted.append(_largest(space, build("parallel_adapter", ("ffn",), 3e-3), space.shapes.hidden_size, cap // 4))
    if "lora" in options:
        wanted.append(_largest(space, build("lora", LINEAR_PARTS, 5e-3), space.shapes.hidden_size, cap // 4))
    return [item for item in wanted if item is not None]


def _largest(space: BoundSpace, build: Callable[[int], Configuration], high: int, cap: int) -> Configuration | None:
    """The configuration of the largest size in 1..high within the cap; None if size 1 exceeds it or tunes nothing."""
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if space.parameter_count(build(middle)) <= cap else (low, middle - 1)
    return build(low) if low and build(low).placements else None
