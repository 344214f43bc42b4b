"""AutoPEFT's method (Zhou et al., arXiv 2301.12132) on a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from torch import Tensor

from autopeft.configuration import OptionValue, Parameter
from autopeft.objectives import non_dominated_mask
from autopeft.samplers import Source, Suggestion
from autopeft.samplers._candidates import CandidateSource
from autopeft.samplers._design import Design
from autopeft.samplers._gaussian_process import Data, FitError, GaussianProcess, fit, kernel
from autopeft.samplers._priors import NoisePrior, SparseAxes
from autopeft.samplers._values import to_unit
from autopeft.study import Trial
from benchmarks.replay.world import World

Array = npt.NDArray[np.float64]

#: The reference point of the released code, the same for every task: quality, and percent of the backbone's parameters.
PUBLISHED_REFERENCE = (0.7, 26.0)
#: Quantiles of the copula transform are kept this far from 0 and 1.
_EDGE = 1e-4
_N_SAMPLES = 128
#: About BoTorch's, which its models have.
_NOISE = NoisePrior(location=-4.0)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the method is run.

    Args:
        n_initial: Random rows before the surrogates decide. The paper draws half of its evaluations at random, the
            released code's default is 20.
        is_published: Whether costs are linear percents, the reference point is `PUBLISHED_REFERENCE` and parameters are
            encoded on the unit cube, all as released; otherwise costs are logarithms, the reference point is a tenth of
            the front's range below its worst values (BoTorch's `infer_reference_point`) and the codes are ours.
        has_design: Whether it begins with the points that our sampler begins with, instead of random rows.
    """

    n_initial: int = 20
    is_published: bool = True
    has_design: bool = False


class AutoPeftRival:
    """Two Gaussian processes with sparse axis-aligned subspaces, and noisy expected hypervolume improvement.

    Both objectives are modelled, the exactly known number of parameters too. Each is mapped to normal quantiles by its
    ranks. The length scales are fitted by maximum a posteriori under the half-Cauchy prior of arXiv 2103.00349, not
    sampled by NUTS: a hundred refits for every one of the repetitions are out of reach. The acquisition function is
    evaluated at every row that is left, exactly where the released code's local search returns another point than the
    one it found: this is the method as it is written.

    Args:
        world: The table.
        settings: Of the method.
        seed: Of random rows and samples.
    """

    def __init__(self, world: World, settings: Settings, *, seed: int) -> None:
        self._world = world
        self._settings = settings
        self._seed = seed
        published = [_unit(row.point.params, world.space.parameters) for row in world.rows]
        self._codes = torch.as_tensor(np.array(published) if settings.is_published else world.codes)
        counts = np.array([row.point.trainable_parameters for row in world.rows], dtype=np.float64)
        self._costs = 100 * counts / world.space.shapes.parameters if settings.is_published else world.log_costs
        candidates = [row.point.params for row in world.rows]
        self._design = Design(CandidateSource(world.space, candidates=candidates), seed=seed)

    def ask(self, trials: Sequence[Trial], n: int) -> list[Suggestion]:
        """See `autopeft.samplers.Sampler`."""
        rng = np.random.default_rng([self._seed, len(trials)])
        taken = {self._world.index[item.configuration.fingerprint] for item in trials}
        found = []
        for _ in range(n):
            left = [row for row in range(len(self._world)) if row not in taken]
            if not left:
                break
            row, source = self._choose(trials, left, taken, rng)
            taken.add(row)
            found.append(Suggestion(params=self._world.rows[row].point.params, notes={"source": source.value}))
        return found

    def _choose(
        self, trials: Sequence[Trial], left: Sequence[int], taken: set[int], rng: np.random.Generator
    ) -> tuple[int, Source]:
        known = self._measured(trials)
        if len(taken) < self._settings.n_initial or len(known) < 4:
            if self._settings.has_design:
                names = {self._world.rows[row].point.fingerprint for row in taken}
                point = self._design.propose(len(taken), rng, names)
                if point is not None:
                    return self._world.index[point.fingerprint], Source.INITIAL
            return int(rng.choice(left)), Source.INITIAL
        rows = list(known)
        raw = np.column_stack([list(known.values()), -self._costs[rows]])  # all-maximise
        quantiles = np.column_stack([_to_normal(column, column) for column in raw.T])
        x = self._codes[rows]
        try:
            models = [fit(Data.merge(x.numpy(), column), SparseAxes(), _NOISE) for column in quantiles.T]
        except FitError:
            return int(rng.choice(left)), Source.RANDOM
        running = [row for row in sorted(taken) if row not in known]
        reference = self._reference(raw, quantiles)
        baseline = self._codes[rows + running]
        gains = expected_improvement(models, baseline, self._codes[list(left)], reference, rng)
        best = np.flatnonzero(gains == gains.max())  # nothing but zeros beyond the reference point
        return left[int(rng.choice(best))], Source.MODEL

    def _measured(self, trials: Sequence[Trial]) -> dict[int, float]:
        """Qualities by row; a failed row has the worst one."""
        found = {self._world.index[item.configuration.fingerprint]: item for item in trials if item.state.is_finished}
        values = {row: item.value(self._world.metric) for row, item in found.items()}
        worst = min((value for value in values.values() if value is not None), default=None)
        return {row: worst if value is None else value for row, value in values.items() if worst is not None}

    def _reference(self, raw: Array, quantiles: Array) -> Array:
        if self._settings.is_published:
            quality, percent = PUBLISHED_REFERENCE
            return np.array(
                [_to_normal(raw[:, 0], np.array([quality]))[0], _to_normal(raw[:, 1], np.array([-percent]))[0]]
            )
        front = quantiles[non_dominated_mask(quantiles)]
        span = np.ptp(front, axis=0)
        return np.asarray(front.min(axis=0) - 0.1 * np.where(span > 0, span, 1.0))


def expected_improvement(
    models: Sequence[GaussianProcess], baseline: Tensor, candidates: Tensor, reference: Array, rng: np.random.Generator
) -> Array:
    """Noisy expected hypervolume improvement (Daulton et al., arXiv 2105.08195), by joint posterior samples.

    Args:
        models: Of the two objectives, independent.
        baseline: Points that are or will be evaluated (b x d): their noise-free values are uncertain, too.
        candidates: Points to score one by one (c x d).
        reference: All-maximise reference point (2,), in the models' units.
        rng: Of the samples.

    Returns:
        Mean gain in hypervolume (c,), >= 0.
    """
    points = torch.cat([baseline, candidates])
    n_baseline = len(baseline)
    normals = torch.as_tensor(rng.standard_normal((len(models), _N_SAMPLES, len(points))))
    samples = np.stack([_joint_samples(model, points, z) for model, z in zip(models, normals, strict=True)], axis=-1)
    total = np.zeros(len(candidates))
    for sample in samples:  # (b + c) x 2
        total += _gains(sample[:n_baseline], sample[n_baseline:], reference)
    return total / len(samples)


def _joint_samples(model: GaussianProcess, points: Tensor, z: Tensor) -> Array:
    """Noise-free values at points (p x d), from standard normals (s x p): samples (s x p)."""
    found = model.hyperparameters
    signal = math.exp(found.log_signal)
    data = model.data
    own = signal * kernel(data.x, data.x, found.log_scales)[0]
    own.diagonal().add_(model.noise)
    factor = torch.linalg.cholesky(own)
    cross = signal * kernel(points, data.x, found.log_scales)[0]
    half = torch.linalg.solve_triangular(factor, cross.T, upper=False)
    covariance = signal * kernel(points, points, found.log_scales)[0] - half.T @ half
    covariance.diagonal().add_(1e-6 * signal)
    mean, _ = model.predict(points)
    return np.asarray((mean + z @ torch.linalg.cholesky(covariance).T).numpy())


def _gains(baseline: Array, candidates: Array, reference: Array) -> Array:
    """Hypervolume that each candidate (c x 2) adds to the baseline (b x 2) alone (c,)."""
    above = baseline[(baseline > reference).all(axis=1)]
    order = np.lexsort((-above[:, 1], -above[:, 0]))
    front: list[tuple[float, float]] = []  # first objective falling, second rising
    for first, second in above[order]:
        if not front or second > front[-1][1]:
            front.append((first, second))
    # Along the first objective, between falling members of the front, the front's height is constant.
    firsts = np.array([math.inf, *(item[0] for item in front), reference[0]])
    heights = np.array([reference[1], *(item[1] for item in front)])
    widths = np.minimum(candidates[:, :1], firsts[:-1]) - np.maximum(firsts[1:], reference[0])  # c x segments
    rises = candidates[:, 1:] - heights
    return np.asarray((np.maximum(widths, 0.0) * np.maximum(rises, 0.0)).sum(axis=1))


def _to_normal(observed: Array, values: Array) -> Array:
    """Normal quantiles of values by their ranks among observations; ties share a rank."""
    ranks = np.array([(np.mean(observed < value) + np.mean(observed <= value)) / 2 for value in values])
    return np.asarray(stats.norm.ppf(np.clip(ranks, _EDGE, 1 - _EDGE)))


def _unit(params: Mapping[str, OptionValue], parameters: Sequence[Parameter]) -> list[float]:
    """Every parameter on the unit interval; categories in the order they are declared, what is inactive at 0."""
    return [_position(item, params[item.name]) if item.name in params else 0.0 for item in parameters]


def _position(parameter: Parameter, value: OptionValue) -> float:
    if parameter.type in ("bool", "categorical"):
        values = parameter.values or ()
        return values.index(value) / max(len(values) - 1, 1)
    return to_unit(parameter, value)
