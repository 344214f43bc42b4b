from __future__ import annotations

import pytest

from autopeft.exceptions import UsageError
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
