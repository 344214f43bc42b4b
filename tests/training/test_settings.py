from __future__ import annotations

import json

import pytest

from autopeft.exceptions import UsageError
from autopeft.study import Fidelity
from autopeft.training import TrainingSettings


def test_dict_form_builds_the_same_settings():
    settings = TrainingSettings(batch_size=4, max_grad_norm=None, precision="float32")
    assert TrainingSettings(**settings.to_dict()) == settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0),
        ("max_tokens", 1),
        ("weight_decay", -0.1),
        ("weight_decay", float("nan")),
        ("warmup_share", 1.0),
        ("max_grad_norm", 0.0),
        ("evaluations_per_epoch", 0),
    ],
)
def test_impossible_value_is_refused_by_name(name, value):
    with pytest.raises(UsageError, match=rf"{name}.*but got {value}"):
        TrainingSettings(**{name: value})


def test_unknown_precision_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match=r"unknown precision 'bfloat'.*bfloat16"):
        TrainingSettings(precision="bfloat")


def test_rungs_are_ascending_shares() -> None:
    for rungs in ((0.5, 0.2), (0.2, 0.2), (0.0,), (1.0,)):
        with pytest.raises(UsageError, match="ascending shares"):
            TrainingSettings(rungs=rungs)
    with pytest.raises(UsageError, match="rung_examples >= 1"):
        TrainingSettings(rungs=(0.5,), rung_examples=0)


def test_rungs_survive_json_and_studies_without_them_are_as_they_were() -> None:
    settings = TrainingSettings(rungs=(1 / 9, 1 / 3), rung_examples=64)
    assert TrainingSettings(**json.loads(json.dumps(settings.to_dict()))) == settings
    assert not {"rungs", "rung_examples"} & TrainingSettings().to_dict().keys()


@pytest.mark.parametrize(
    ("n_examples", "epochs", "rungs", "expected"),
    [(40, 2, (1 / 9, 1 / 3), (2, 4)), (9, 1, (1 / 9, 1 / 3), (1,)), (8, 1, (1 / 3,), ()), (40, 2, (0.5,), (5,))],
)
def test_rungs_fall_on_steps_before_the_end(n_examples, epochs, rungs, expected) -> None:
    """Oracle: counted by hand, eight examples to a step."""
    fidelity = Fidelity(train_examples=n_examples, epochs=epochs)
    settings = TrainingSettings(batch_size=8, rungs=rungs)
    assert settings.rung_steps(fidelity) == expected
    assert settings.n_steps(fidelity) == settings.epoch_points(fidelity)[-1] == -(-n_examples // 8) * epochs
