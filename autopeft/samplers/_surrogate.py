"""Models of the measured objectives, and how far they can be trusted."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from torch import Tensor

from autopeft.samplers._botorch import BotorchWarning, NumericalWarning
from autopeft.samplers._gaussian_process import Data, FitError, GaussianProcess, fit
from autopeft.samplers._left_out import LeftOut
from autopeft.samplers._priors import DimensionScaled, LengthScalePrior
from autopeft.samplers._transform import OutcomeTransform

Array = npt.NDArray[np.float64]

#: One process each. On a table of 420 configurations trained on SST-2, 30 searches, shares of the volume after 10, 20,
#: 40 and 100 trials are 0.887, 0.966, 0.989 and 0.997; when less was believed to be noise, and length scales were
#: longer, they were 0.870, 0.959, 0.982 and 0.994. At that time an equal mixture with `SparseAxes` and BoTorch's own
#: prior found as much as each other after 40 trials, less than this one alone (0.982 instead of 0.987, 16 searches).
PRIORS: tuple[LengthScalePrior, ...] = (DimensionScaled(),)
#: Different configurations from which predictions of others can be judged.
_MIN_JUDGED = 16
#: Folds for that, and the most configurations a fold is fitted to; of a long study one fold is enough.
_N_FOLDS = 5
_MAX_FITTED = 120


class SurrogateError(Exception):
    """No Gaussian process could be fitted to the observations."""


@contextlib.contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Run torch on one thread, from a seed, without a trace outside and without the libraries' routine warnings.

    The matrices are tiny, so that more threads only fight over the cores of a running trial; and one thread gives the
    same sums in the same order everywhere.
    """
    n_threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # Jitter added to a covariance and restarts of the fit are routine; a fit that fails raises.
        warnings.simplefilter("ignore", BotorchWarning)
        warnings.simplefilter("ignore", NumericalWarning)
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(n_threads)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How well a surrogate predicts each configuration from others.

    Leave-one-out is a closed form with the hyperparameters of all data. With one length scale per dimension these can
    make an order of pure noise look predictable (a rank correlation of 0.3 over 40 configurations, measured), so that
    the verdict is left to folds whose hyperparameters have not seen what they predict.

    Args:
        n: Different configurations.
        rank_correlation: Spearman's, of leave-one-out predictions with observations; None where one is constant.
        log_density: Mean log density of the observations under these predictions, in transformed units.
        constant_log_density: The same for the mean and variance of all other observations: what must be beaten.
        n_held_out: Configurations predicted by folds; 0 if there were too few.
        held_out_rank_correlation: Spearman's, of the folds' predictions; None if they are constant or there are none.
    """

    n: int
    rank_correlation: float | None
    log_density: float
    constant_log_density: float
    n_held_out: int = 0
    held_out_rank_correlation: float | None = None

    @property
    def is_worthless(self) -> bool:
        """Whether the order of what was held out is predicted no better than by a coin.

        No higher correlation is asked for: where measurements are noisy (SST-2 at 1,300 examples), a model whose
        correlation is not significant yet still finds better fronts than space-filling. False below `_MIN_JUDGED`
        configurations: with so few nothing can be said, and the prior is as good as a design.
        """
        if self.n_held_out < _MIN_JUDGED:
            return False
        return self.held_out_rank_correlation is None or self.held_out_rank_correlation <= 0

    def to_dict(self) -> dict[str, float | int | None]:
        """JSON-ready form, rounded."""
        return {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in dataclasses.asdict(self).items()
        }


class Shift(Protocol):
    """A known function beside a process: predictions become ``mean(x) + spread * process``."""

    @property
    def spread(self) -> float:
        """Factor of the process, > 0."""

    def mean(self, x: Array) -> Array:
        """The known function (n,) at points (n x d)."""


class Surrogate(Protocol):
    """A model of one measured objective over encoded configurations, in transformed units (see `OutcomeTransform`)."""

    @property
    def quality(self) -> Quality:
        """By leave-one-out, as fitted."""

    @property
    def left_out(self) -> LeftOut:
        """The leave-one-out predictions themselves, as fitted."""

    @property
    def transform(self) -> OutcomeTransform:
        """From natural all-maximise values to the units of the predictions."""

    @property
    def process(self) -> GaussianProcess:
        """A single Gaussian process that stands for it where joint samples are drawn, before the shift."""

    @property
    def shift(self) -> Shift | None:
        """What turns predictions of the process into those of the surrogate; None for nothing."""

    def predict(self, x: Array) -> tuple[Tensor, Tensor]:
        """Posterior of the noise-free value at points (n x d): means (n,) and standard deviations (n,), > 0."""

    def believe(self, x: Array) -> None:
        """Take points (n x d) as observed at their predicted means: uncertainty near them shrinks, the mean stays."""


class GaussianProcesses:
    """An equally weighted mixture of Gaussian processes: the default surrogate.

    One process per prior on the length scales, hyperparameters by maximum a posteriori; predictions have the mixture's
    mean and variance. Repeated observations of a point are merged and tell the noise.

    Args:
        processes: At least one, fitted to the same data.
        transform: What the data were mapped by.
        held_out: How many configurations folds predicted, and the rank correlation of these predictions.
    """

    def __init__(
        self,
        processes: Sequence[GaussianProcess],
        transform: OutcomeTransform,
        *,
        held_out: tuple[int, float | None] = (0, None),
    ) -> None:
        self.transform = transform
        self.processes = list(processes)
        self.left_out = _left_out(self.processes)
        self.quality = _quality(self.processes[0].data, self.left_out, held_out)

    @classmethod
    def fit(
        cls, x: Array, y: Array, *, noise_sd: Array | None = None, priors: Sequence[LengthScalePrior] = PRIORS
    ) -> GaussianProcesses:
        """Fit the default surrogate.

        Args:
            x: Encoded configurations (n x d), about in [0, 1]; equal rows are repeated observations.
            y: Natural all-maximise values (n,).
            noise_sd: Further noise of single values, in their units (n,), >= 0; None for none.
            priors: One process is fitted for each.

        Raises:
            SurrogateError: If there are fewer than two observations, or none of the fits works.
        """
        if len(y) < 2:
            raise SurrogateError(f"a surrogate needs two observations or more, but got {len(y)}.")
        transform = OutcomeTransform.of(y)
        extra = None if noise_sd is None else np.square(np.asarray(noise_sd) * transform.slope(y))
        data = Data.merge(x, transform(y), extra)
        return cls(fit_processes(data, priors), transform, held_out=hold_out(data, priors))

    #: Its processes predict the objective itself.
    shift: Shift | None = None

    @property
    def process(self) -> GaussianProcess:
        """The first one."""
        return self.processes[0]

    def predict(self, x: Array) -> tuple[Tensor, Tensor]:
        """See `Surrogate`."""
        points = torch.as_tensor(x, dtype=torch.float64)
        mean, variance = _mixture([process.predict(points) for process in self.processes])
        return mean, variance.sqrt()

    def believe(self, x: Array) -> None:
        """See `Surrogate`."""
        if len(x):
            points = torch.as_tensor(x, dtype=torch.float64)
            means, _ = self.predict(x)
            self.processes = [process.with_data(points, means) for process in self.processes]


def fit_processes(data: Data, priors: Sequence[LengthScalePrior] = PRIORS) -> list[GaussianProcess]:
    """One process per prior, those apart that cannot be fitted.

    Raises:
        SurrogateError: If none can.
    """
    processes, problems = [], []
    for prior in priors:
        try:
            processes.append(fit(data, prior))
        except (FitError, RuntimeError) as error:  # linear algebra fails with kinds of RuntimeError
            problems.append(str(error))
    if not processes:
        raise SurrogateError(
            f"no Gaussian process could be fitted to {len(data.z)} observations: {'; '.join(sorted(set(problems)))}"
        )
    return processes


def hold_out(data: Data, priors: Sequence[LengthScalePrior]) -> tuple[int, float | None]:
    """How many configurations folds predict, and Spearman's correlation with what was observed there."""
    n = len(data.z)
    if n < _MIN_JUDGED:
        return 0, None
    position = torch.arange(n)
    if n * (_N_FOLDS - 1) // _N_FOLDS <= _MAX_FITTED:
        folds = [position % _N_FOLDS == fold for fold in range(_N_FOLDS)]
    else:
        seen = torch.zeros(n, dtype=torch.bool)
        seen[torch.linspace(0, n - 1, _MAX_FITTED).round().long()] = True
        folds = [~seen]
    predicted, observed = [], []
    for held in folds:
        processes = fit_processes(data.take(~held), priors)
        predicted.append(_mixture([process.predict(data.x[held]) for process in processes])[0].numpy())
        observed.append(data.z[held].numpy())
    return sum(map(len, observed)), _rank_correlation(np.concatenate(predicted), np.concatenate(observed))


def _rank_correlation(left: Array, right: Array) -> float | None:
    """Spearman's; None where one is constant (to rounding) or there are fewer than three."""
    if len(left) < 3 or min(np.ptp(left), np.ptp(right)) < 1e-9:
        return None
    return float(stats.spearmanr(left, right).statistic)


def _mixture(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean and variance of an equally weighted mixture of distributions with these means and variances."""
    means, variances = torch.stack([mean for mean, _ in parts]), torch.stack([variance for _, variance in parts])
    mean = means.mean(0)
    return mean, variances.mean(0) + (means - mean).square().mean(0)


def _left_out(processes: Sequence[GaussianProcess]) -> LeftOut:
    mean, variance = _mixture([process.leave_one_out() for process in processes])
    return LeftOut(x=processes[0].data.x.numpy(), mean=mean.numpy(), deviation=variance.sqrt().numpy())


def _quality(data: Data, left_out: LeftOut, held_out: tuple[int, float | None]) -> Quality:
    z = data.z.numpy()
    n = len(z)
    # Mean and variance of the others, each: (n m - z_i) / (n - 1) and so on; a spread of zero gets a floor.
    others = (z.sum() - z) / max(n - 1, 1)
    spread = np.maximum((np.square(z).sum() - np.square(z)) / max(n - 1, 1) - np.square(others), 1e-6)
    return Quality(
        n=n,
        rank_correlation=_rank_correlation(left_out.mean, z),
        log_density=float(stats.norm.logpdf(z, left_out.mean, left_out.deviation).mean()),
        constant_log_density=float(stats.norm.logpdf(z, others, np.sqrt(spread)).mean()),
        n_held_out=held_out[0],
        held_out_rank_correlation=held_out[1],
    )
