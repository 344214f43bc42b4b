from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from autopeft.rewards._attack import largest_gap, roc_auc, roc_points, tpr_at_fpr

scores = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=30)


def labelled(members, others):
    return np.r_[np.ones(len(members)), np.zeros(len(others))], np.r_[members, others]


@given(members=scores, others=scores)
def test_area_is_scikit_learns_and_that_of_all_pairs(members, others):
    labels, values = labelled(members, others)
    pairs = [(a > b) + 0.5 * (a == b) for a in members for b in others]
    assert roc_auc(members, others) == pytest.approx(roc_auc_score(labels, values))
    assert roc_auc(members, others) == pytest.approx(np.mean(pairs))


@given(members=scores, others=scores)
def test_curve_is_scikit_learns(members, others):
    labels, values = labelled(members, others)
    fpr, tpr, _ = roc_curve(labels, values, drop_intermediate=False)
    mine = roc_points(members, others)
    np.testing.assert_allclose(mine[0], fpr)
    np.testing.assert_allclose(mine[1], tpr)
    assert largest_gap(members, others) == pytest.approx((tpr - fpr).max())
    for level in (0.0, 0.01, 0.1, 0.5, 1.0):
        assert tpr_at_fpr(members, others, level) == pytest.approx(tpr[fpr <= level].max())


def test_extremes():
    assert roc_auc([2, 3], [0, 1]) == 1
    assert roc_auc([0, 1], [2, 3]) == 0
    assert roc_auc([1, 1], [1, 1]) == 0.5
    assert largest_gap([1, 1], [1, 1]) == 0
    assert tpr_at_fpr([2, 3], [0, 1], 0.0) == 1
