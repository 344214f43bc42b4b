from __future__ import annotations

import pytest

from autopeft.objectives import Direction
from autopeft.store import StudyReader, open_store
from autopeft.study import TrialKind
from dashboard.queries import COLUMNS, add_roles, has_direction, measured, trials_frame, value_names, worth_listing
from tests.dashboard.studies import spec
from tests.study.builders import ACCURACY


def test_the_frame_says_what_the_trials_say(full_url: str) -> None:
    """Oracle: the trials themselves."""
    study = open_store(full_url).load_study("study")
    with StudyReader(full_url) as reader:
        frame = trials_frame(reader, "study", ["accuracy", "wall_time_s", "trainable_parameters", "never measured"])
    assert list(frame.columns) == [*COLUMNS, "rung_share", "accuracy", "wall_time_s", "never measured"]
    for row, trial in zip(frame.to_dict("records"), study.trials, strict=True):
        assert row["number"] == trial.number
        assert row["state"] == trial.state.value
        assert row["trainable_parameters"] == trial.draft.trainable_parameters
        for name in ("accuracy", "wall_time_s"):
            expected = trial.value(name)
            assert row[name] != row[name] if expected is None else row[name] == pytest.approx(expected)
        share = None if trial.rung is None else trial.rung.share
        assert row["rung_share"] != row["rung_share"] if share is None else row["rung_share"] == share
    assert frame["never measured"].isna().all()


def test_an_empty_study_is_an_empty_frame_of_the_same_columns(url: str) -> None:
    open_store(url).create_study(spec())
    with StudyReader(url) as reader:
        frame = trials_frame(reader, "study", ["accuracy"])
    assert frame.empty
    assert "accuracy" in frame
    assert measured(frame, ["accuracy"], TrialKind.SEARCH).empty


def test_axes_are_objectives_metrics_and_costs_without_diagnostics(full_url: str) -> None:
    with StudyReader(full_url) as reader:
        found = value_names(reader, "study", spec())
    assert [item.name for item in found] == [
        "accuracy",
        "trainable_parameters",
        "macro_f1",
        "peak_memory_bytes",
        "wall_time_s",
    ]
    assert found[3].unit == "bytes"


def test_directions_are_said_by_the_study_or_not_known() -> None:
    rewards = {"calibration": {"reference": "c", "direction": "minimize", "unit": "points"}}
    found = spec(rewards=rewards)
    known = [name for name in ("accuracy", "rmse", "wall_time_s", "calibration") if has_direction(found, name)]
    assert known == ["accuracy", "wall_time_s", "calibration"]


def test_a_recorded_reward_keeps_its_own_direction_and_unit(full_url: str) -> None:
    # Any stored number will do for the reward: here the one called macro_f1.
    recorded = {"macro_f1": {"reference": "mine.py:f", "direction": "minimize", "unit": "lm", "settings": {}}}
    with StudyReader(full_url) as reader:
        found = value_names(reader, "study", spec(rewards=recorded))
    axis = next(item for item in found if item.name == "macro_f1")
    assert (axis.direction, axis.unit) == (Direction.MINIMIZE, "lm")


def test_of_many_trials_those_worth_it_are_listed(full_url: str) -> None:
    """Oracle: the fixture: baselines 0 and 1, front 2, 3 and 5, best two 5 and 7, newest 14."""
    with StudyReader(full_url) as reader:
        frame = add_roles(trials_frame(reader, "study", ["accuracy"]), spec())
    assert worth_listing(frame, ACCURACY, 15) == list(range(15))
    assert worth_listing(frame, ACCURACY, 4) == [0, 1, 2, 3, 5, 7, 14]
    assert worth_listing(frame.iloc[:0], ACCURACY, 4) == []
