import math

import pytest

from autopeft.study import CurvePoint, Fidelity, Measurement, Rung
from tests.study.builders import FIDELITY, make_measurement


def test_missing_is_none_and_not_a_number() -> None:
    measurement = make_measurement(0.5)
    assert measurement.value("accuracy") == 0.5
    assert measurement.value("wall_time_s") == 1.5
    assert measurement.value("f1") is None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_non_finite_values_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="leave out what was not measured"):
        Measurement(split="search", fidelity=FIDELITY, seed=0, metrics={"accuracy": value})


def test_unknown_split_and_empty_fidelity_are_refused() -> None:
    with pytest.raises(ValueError, match="split must be"):
        Measurement(split="test", fidelity=FIDELITY, seed=0, metrics={})
    with pytest.raises(ValueError, match="must hold"):
        Fidelity(train_examples=0, epochs=1)


def test_rung_is_before_the_end() -> None:
    assert Rung(step=3, n_steps=9).share == 1 / 3
    for step, n_steps, n_examples in ((0, 9, None), (9, 9, None), (3, 9, 0)):
        with pytest.raises(ValueError, match="must hold"):
            Rung(step=step, n_steps=n_steps, n_examples=n_examples)


def test_what_modules_counted_is_kept_apart_from_the_scores() -> None:
    metrics = {"accuracy": 0.5, "layers.0.q.moe_lora.load_1": 0.2, "dynamics.importance_3": -1.0, "train_loss": 2.0}
    point = CurvePoint(step=1, epoch=1.0, metrics=metrics, wall_time_s=0.0)
    assert point.scores == {"accuracy": 0.5, "train_loss": 2.0}
    assert point.statistics == {"layers.0.q.moe_lora.load_1": 0.2, "dynamics.importance_3": -1.0}
