"""How well scores tell members from non-members: ROC statistics by ranks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Scores = npt.ArrayLike


def roc_auc(members: Scores, others: Scores) -> float:
    r"""Area under the ROC curve by the rank statistic of Mann and Whitney.

    :math:`(R - m (m + 1) / 2) / (m n)` with the sum R of the members' ranks among all; ties count half.

    Args:
        members: Scores of the m members; larger means more likely a member.
        others: Scores of the n non-members.

    Returns:
        In [0, 1]; 0.5 is chance.
    """
    a, b = np.asarray(members, dtype=np.float64), np.asarray(others, dtype=np.float64)
    ranks = rankdata(np.concatenate([a, b]))
    return float((ranks[: len(a)].sum() - len(a) * (len(a) + 1) / 2) / (len(a) * len(b)))


def roc_points(members: Scores, others: Scores) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """False and true positive rates of every threshold, from (0, 0) to (1, 1).

    Returns:
        FPR and TPR, each (thresholds + 1,), not decreasing.
    """
    a, b = np.asarray(members, dtype=np.float64), np.asarray(others, dtype=np.float64)
    thresholds = np.unique(np.concatenate([a, b]))[::-1]
    fpr, tpr = ((np.asarray(x)[:, None] >= thresholds).mean(axis=0) for x in (b, a))
    return np.append(0.0, fpr), np.append(0.0, tpr)


def largest_gap(members: Scores, others: Scores) -> float:
    """The largest TPR - FPR over all thresholds, in [0, 1]; above 0 by chance where examples are few."""
    fpr, tpr = roc_points(members, others)
    return float((tpr - fpr).max())


def tpr_at_fpr(members: Scores, others: Scores, level: float) -> float:
    """The largest TPR over thresholds with an FPR of at most `level`, in [0, 1]."""
    fpr, tpr = roc_points(members, others)
    return float(tpr[fpr <= level].max())
