from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopeft.exceptions import UsageError
from autopeft.rewards import REWARDS
from autopeft.rewards._calibration import CalibrationError, expected_calibration_error
from tests.rewards.candidates import on_candidate


def by_definition(confidences, is_right, bins):
    """Oracle: the sum over bins (low, high], the first with its lower end, written out."""
    total = 0.0
    for b in range(bins):
        low, high = b / bins, (b + 1) / bins
        inside = [i for i, c in enumerate(confidences) if (low < c or b == 0) and c <= high]
        if inside:
            gap = np.mean([is_right[i] for i in inside]) - np.mean([confidences[i] for i in inside])
            total += len(inside) / len(confidences) * abs(gap)
    return total


def test_closed_form():
    # Bins (0, .5] and (.5, 1]: 2 examples at .4 with 1 right, 3 at .9 with 2 right.
    confidences = np.array([0.4, 0.4, 0.9, 0.9, 0.9])
    is_right = np.array([True, False, True, True, False])
    expected = 2 / 5 * abs(0.5 - 0.4) + 3 / 5 * abs(2 / 3 - 0.9)
    assert expected_calibration_error(confidences, is_right, 2) == pytest.approx(expected)


@given(
    rows=st.lists(st.tuples(st.integers(0, 97).map(lambda i: i / 97), st.booleans()), min_size=1, max_size=40),
    bins=st.integers(2, 20),
)
def test_definition(rows, bins):
    confidences, is_right = (np.array(column) for column in zip(*rows, strict=True))
    found = expected_calibration_error(confidences, is_right, bins)
    assert found == pytest.approx(by_definition(confidences, is_right, bins))
    assert 0 <= found <= 1


def test_sure_and_right_has_no_error_and_sure_and_wrong_all_of_it():
    sure = np.ones(4)
    assert expected_calibration_error(sure, np.ones(4, dtype=bool), 15) == 0
    assert expected_calibration_error(sure, np.zeros(4, dtype=bool), 15) == 1


def test_reward_bins_the_split_s_own_probabilities():
    def look(candidate):
        return REWARDS["calibration_error"].measure(candidate), candidate.probabilities(), candidate.data.targets

    (found, probabilities, targets), _ = on_candidate(look, report=True)
    confidences, is_right = probabilities.max(1), probabilities.argmax(1) == targets
    assert len(targets) == 20
    assert found.value == pytest.approx(by_definition(confidences, is_right, 15))
    assert found.details["overconfidence"] == pytest.approx(confidences.mean() - is_right.mean())


def test_bins_must_be_some():
    with pytest.raises(UsageError, match=r"calibration_error.bins must be at least 2"):
        CalibrationError(bins=1)
