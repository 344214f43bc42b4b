"""Surrogates that start from what earlier studies found, and believe it as far as the new trials bear it out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from torch import Tensor

from autopeft.samplers._gaussian_process import Data, GaussianProcess
from autopeft.samplers._left_out import LeftOut
from autopeft.samplers._surrogate import GaussianProcesses, Quality, Surrogate, SurrogateError, fit_processes
from autopeft.samplers._transform import OutcomeTransform

Array = npt.NDArray[np.float64]

#: Observations without which an earlier study is not modelled.
MIN_OBSERVATIONS = 6
#: Resampled sets of the new trials by which rankings are compared.
_N_BOOTSTRAP = 256
#: Different new configurations without which rankings are not compared.
_MIN_RANKED = 4
#: How many trials' worth the belief is that what a source predicts, in units of its spread, holds here unchanged.
_SLOPE_PRIOR = 4.0
_MAX_SLOPE = 1.5
#: The least spread of what sources leave over, in units of the new trials' spread: nothing is taken for known.
_MIN_SPREAD = 0.15


class SourceModel:
    """One objective of an earlier study as a function on this space, in units of its own spread.

    Args:
        name: Of the study.
        model: Fitted to its trials.
    """

    def __init__(self, name: str, model: GaussianProcesses) -> None:
        self.name = name
        self._model = model

    @classmethod
    def fit(cls, name: str, x: Array, y: Array) -> SourceModel | None:
        """Fit to an earlier study.

        Args:
            name: Of the study.
            x: Its trials, encoded in this space (n x d).
            y: Their all-maximise values (n,).

        Returns:
            The model; None if there is nothing to learn: too few trials, or all the same value.
        """
        if len(y) < MIN_OBSERVATIONS or np.ptp(y) == 0:
            return None
        transform = OutcomeTransform.of(y)
        try:
            return cls(name, GaussianProcesses(fit_processes(Data.merge(x, transform(y))), transform))
        except SurrogateError:
            return None

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Means (n,) and standard deviations (n,) at encoded points (n x d)."""
        mean, deviation = self._model.predict(x)
        return mean.numpy(), deviation.numpy()


def ranking_weights(observed: Array, own: Array, others: Sequence[Array], rng: np.random.Generator) -> Array:
    """How often each model orders resampled trials best: the new task's own model first, then the sources.

    A model is charged the pairs of trials that it orders wrongly, over bootstrap samples of the trials. Its weight is
    the share of samples in which it is the best; the own model takes ties that it is part of. Before that, a source
    whose median loss exceeds the 95th percentile of the own model's is dropped: many useless sources would otherwise
    dilute the weights of good ones. So is one that orders no more pairs rightly than a coin: a model that knows nothing
    yet predicts of each trial the mean of the others, which orders them backwards, and loses to anybody. After Feurer
    et al., "Practical transfer learning for Bayesian optimization" (arXiv 1802.02219), with resampled trials in place
    of samples of the posteriors.

    Args:
        observed: Values of the new trials (n,).
        own: What the own model predicts for each without it (n,).
        others: What each source predicts for them, (n,) each.
        rng: Draws the samples.

    Returns:
        Weights (1 + number of sources,), >= 0, of sum 1.
    """
    n = len(observed)
    coin = np.zeros(n)
    wrong = np.stack([_misordered(observed, item) for item in (own, *others, coin)])  # models x n x n
    draws = rng.integers(n, size=(_N_BOOTSTRAP, n))
    counts = np.stack([np.bincount(draw, minlength=n) for draw in draws]).astype(np.float64)  # samples x n
    losses = np.einsum("si,mij,sj->ms", counts, wrong, counts, optimize=True)
    losses, lost_by_coin = losses[:-1], np.median(losses[-1])
    limit = np.quantile(losses[0], 0.95)
    medians = np.median(losses[1:], axis=1)
    is_kept = np.concatenate([[True], (medians <= limit) & (medians < lost_by_coin)])
    losses = np.where(is_kept[:, None], losses, np.inf)
    is_best = losses <= losses.min(axis=0)
    is_best[1:] &= ~is_best[0]
    return np.asarray((is_best / is_best.sum(axis=0)).mean(axis=1))


def _misordered(observed: Array, predicted: Array) -> Array:
    """Which pairs are ordered wrongly (n x n); a prediction that does not tell two apart is half wrong."""
    actual, guess = np.sign(observed[:, None] - observed), np.sign(predicted[:, None] - predicted)
    return np.asarray(np.where(actual == 0, 0.0, 0.5 * np.abs(actual - guess)))


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceShift:
    """What sources predict, as the start of the new task's own process; see `autopeft.samplers._surrogate.Shift`.

    Args:
        sources: Models, with their weights, > 0.
        center: Added to the weighted predictions.
        spread: Of what they leave over.
    """

    sources: tuple[tuple[SourceModel, float], ...]
    center: float = 0.0
    spread: float = 1.0

    def mean(self, x: Array) -> Array:
        """Weighted sum of the predicted means (n,) at encoded points (n x d), and the center."""
        total = np.full(len(x), self.center)
        for model, weight in self.sources:
            total += weight * model.predict(x)[0]
        return total

    def variance(self, x: Array) -> Array:
        """Weighted sum of the predicted variances (n,): what the sources do not know themselves."""
        total = np.zeros(len(x))
        for model, weight in self.sources:
            total += (weight * model.predict(x)[1]) ** 2
        return total


class TransferSurrogate:
    """Gaussian processes of what the sources' prediction leaves over of the new task.

    Args:
        residual: Fitted to ``(z - shift.mean(x)) / shift.spread``.
        shift: The sources' prediction, in units of the transformed new task.
        transform: Of the new task.
        weights: Of the sources in the ranking, by study.
        reference: Quality of the new task's own surrogate.
    """

    def __init__(
        self,
        residual: GaussianProcesses,
        shift: SourceShift,
        transform: OutcomeTransform,
        *,
        weights: Mapping[str, float],
        reference: Quality,
    ) -> None:
        self.transform = transform
        self.shift = shift
        self.weights = dict(weights)
        self._residual = residual
        self.left_out = _left_out(residual, shift)
        self.quality = _quality(residual, shift, self.left_out, reference)

    @classmethod
    def fit(cls, own: Surrogate, sources: Sequence[SourceModel], *, seed: int) -> Surrogate:
        """Lean on sources as far as they order the new trials better than the new task's own surrogate does.

        Args:
            own: The new task's own surrogate, a Gaussian process without a shift.
            sources: Models of earlier studies.
            seed: With the number of observations it decides the bootstrap.

        Returns:
            The surrogate; `own` itself if no source helps.
        """
        data = own.process.data
        n = len(data.z)
        if not sources or n < _MIN_RANKED:
            return own
        x, z = data.x.numpy(), data.z.numpy()
        predictions = [source.predict(x)[0] for source in sources]
        left_out = own.process.leave_one_out()[0].numpy()
        rng = np.random.default_rng(np.random.SeedSequence([seed, n, 2]))
        weights = ranking_weights(z, left_out, predictions, rng)[1:]
        trust = float(weights.sum())
        if trust <= 0:
            return own
        scale = trust * _slope(weights / trust @ np.stack(predictions), z)
        pairs = [(source, scale * float(w) / trust) for source, w in zip(sources, weights, strict=True) if w > 0]
        named = {source.name: round(float(w), 4) for source, w in zip(sources, weights, strict=True)}
        try:
            return cls._around(own, SourceShift(sources=tuple(pairs)), named)
        except SurrogateError:
            return own

    @classmethod
    def _around(cls, own: Surrogate, predicted: SourceShift, weights: Mapping[str, float]) -> TransferSurrogate:
        """Fit the processes of what is left over."""
        data = own.process.data
        left = data.z.numpy() - predicted.mean(data.x.numpy())
        center, spread = float(left.mean()), max(float(left.std(ddof=1)), _MIN_SPREAD)
        shift = SourceShift(sources=predicted.sources, center=center, spread=spread)
        scaled = Data(
            x=data.x,
            z=torch.as_tensor((left - center) / spread),
            repeats=data.repeats,
            extra=data.extra / spread**2,
            within=data.within / spread**2,
            n_within=data.n_within,
        )
        residual = GaussianProcesses(fit_processes(scaled), own.transform)
        return cls(residual, shift, own.transform, weights=weights, reference=own.quality)

    @property
    def process(self) -> GaussianProcess:
        """See `Surrogate`."""
        return self._residual.process

    def predict(self, x: Array) -> tuple[Tensor, Tensor]:
        """See `Surrogate`. Where the sources know little, what is left over has that much more room."""
        mean, deviation = self._residual.predict(x)
        signal = math.exp(self._residual.process.hyperparameters.log_signal)
        room = torch.as_tensor(self.shift.variance(x)) * (deviation.square() / signal).clamp_max(1.0)
        variance = (self.shift.spread * deviation).square() + room
        return torch.as_tensor(self.shift.mean(x)) + self.shift.spread * mean, variance.sqrt()

    def believe(self, x: Array) -> None:
        """See `Surrogate`."""
        self._residual.believe(x)


def _slope(predicted: Array, observed: Array) -> float:
    """How steeply observations follow predictions, in [0, _MAX_SLOPE], from a prior belief in 1."""
    p, o = predicted - predicted.mean(), observed - observed.mean()
    return float(np.clip((p @ o + _SLOPE_PRIOR) / (p @ p + _SLOPE_PRIOR), 0.0, _MAX_SLOPE))


def _left_out(residual: GaussianProcesses, shift: SourceShift) -> LeftOut:
    """Leave-one-out of the shifted processes; the shift itself is that of all data."""
    x = residual.process.data.x.numpy()
    parts = [process.leave_one_out() for process in residual.processes]
    mean = shift.mean(x) + shift.spread * np.mean([item.numpy() for item, _ in parts], axis=0)
    variance = shift.spread**2 * np.mean([item.numpy() for _, item in parts], axis=0)
    return LeftOut(x=x, mean=mean, deviation=np.sqrt(variance))


def _quality(residual: GaussianProcesses, shift: SourceShift, left_out: LeftOut, reference: Quality) -> Quality:
    data = residual.process.data
    observed = shift.mean(data.x.numpy()) + shift.spread * data.z.numpy()
    mean = left_out.mean
    is_constant = min(np.ptp(mean), np.ptp(observed)) < 1e-9
    return Quality(
        n=len(observed),
        rank_correlation=None if is_constant else float(stats.spearmanr(mean, observed).statistic),
        log_density=float(stats.norm.logpdf(observed, mean, left_out.deviation).mean()),
        constant_log_density=reference.constant_log_density,
    )
