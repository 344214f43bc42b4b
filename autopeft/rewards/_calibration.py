"""Whether a candidate's probabilities mean what they say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from autopeft.exceptions import UsageError
from autopeft.rewards._base import BuiltinReward, RewardValue
from autopeft.tasks import CLASSIFICATION
from autopeft.training import TrainedCandidate


def expected_calibration_error(
    confidences: npt.NDArray[np.float64], is_right: npt.NDArray[np.bool_], bins: int
) -> float:
    r"""Expected calibration error over bins of equal width.

    :math:`\sum_b \frac{n_b}{n} |\mathrm{accuracy}_b - \mathrm{confidence}_b|` over the bins
    :math:`((b - 1) / B, b / B]` of the confidence. It is not debiased: a perfectly calibrated model has about
    :math:`\sqrt{B / n}` of it by chance.

    Args:
        confidences: Probability of the predicted class, in [0, 1], shape (n,).
        is_right: Whether that class is the right one, shape (n,).
        bins: Number of bins B, >= 1.

    Returns:
        In [0, 1].
    """
    bin_of = np.clip(np.ceil(confidences * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(bin_of, weights=is_right.astype(np.float64) - confidences, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidences))


@dataclass(frozen=True, kw_only=True)
class CalibrationError(BuiltinReward):
    """Expected calibration error of the predicted class on the split, over bins of equal width.

    Args:
        bins: Number of bins, >= 2.
    """

    bins: int = 15

    name: ClassVar[str] = "calibration_error"
    summary: ClassVar[str] = "expected calibration error of the predicted class, 15 bins of equal width, not debiased"
    source: ClassVar[str] = "Guo et al., arXiv 1706.04599"
    cost: ClassVar[str] = "one pass over the split, shared with other rewards that read it"
    kinds: ClassVar[frozenset[str]] = frozenset({CLASSIFICATION})

    def __post_init__(self) -> None:
        if self.bins < 2:
            raise UsageError(f"calibration_error.bins must be at least 2, but got {self.bins}.")

    def measure(self, candidate: TrainedCandidate) -> RewardValue:
        """Bin the split's examples by confidence."""
        probabilities = candidate.probabilities()
        confidences = probabilities.max(axis=1)
        is_right = probabilities.argmax(axis=1) == np.asarray(candidate.data.targets)
        error = expected_calibration_error(confidences, is_right, self.bins)
        return RewardValue(value=error, details={"overconfidence": float(confidences.mean() - is_right.mean())})
