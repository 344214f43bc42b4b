from __future__ import annotations

import json

import numpy as np
import pytest

from autopeft.samplers._left_out import LeftOut
from autopeft.samplers._transform import OutcomeTransform

X = np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
LEFT_OUT = LeftOut(x=X, mean=np.array([-1.0, 0.0, 1.0]), deviation=np.array([0.1, 0.2, 0.3]))


def test_predictions_are_found_by_configuration_in_any_order_and_as_often_as_wanted() -> None:
    mean, deviation = LEFT_OUT.at(X[[2, 0, 2, 1]])
    assert mean.tolist() == [1.0, -1.0, 1.0, 0.0]
    assert deviation.tolist() == [0.3, 0.1, 0.3, 0.2]


def test_zero_has_no_sign() -> None:
    assert LEFT_OUT.at(np.array([[-0.0, 1.0]]))[0].tolist() == [-1.0]


def test_a_configuration_that_was_not_fitted_is_none_of_its_own() -> None:
    with pytest.raises(KeyError):
        LEFT_OUT.at(np.array([[0.1, 0.1]]))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_table_has_natural_values(sign: float) -> None:
    """Oracle: where the transform is linear, z = (y - center) / spread."""
    transform = OutcomeTransform(center=0.8, scale=0.1, mean=0.0, deviation=1.0)
    found = LEFT_OUT.table(X, np.array([0.7, 0.8, 0.9]), transform=transform, sign=sign)
    assert found["observed"] == pytest.approx([sign * 0.7, sign * 0.8, sign * 0.9])
    assert found["mean"] == pytest.approx([sign * 0.7, sign * 0.8, sign * 0.9])
    half = [0.01, 0.02, 0.03]
    assert found["low"] == pytest.approx([mean - item for mean, item in zip(found["mean"], half, strict=True)])
    assert found["high"] == pytest.approx([mean + item for mean, item in zip(found["mean"], half, strict=True)])


def test_what_is_beyond_numbers_is_missing_and_the_rest_is_short() -> None:
    transform = OutcomeTransform(center=1 / 3, scale=1.0, mean=0.0, deviation=1.0)
    left_out = LeftOut(x=X[:1], mean=np.array([-2000.0]), deviation=np.array([1.0]))
    found = left_out.table(X[:1], np.array([1 / 3]), transform=transform, sign=1.0)
    assert found == {"observed": [0.333333], "mean": [None], "low": [None], "high": [None]}
    json.dumps(found, allow_nan=False)
