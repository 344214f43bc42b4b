from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from scipy import stats

from autopeft.objectives import COSTS, Constraint
from autopeft.store import StudyReader, open_store
from autopeft.study import Front, Study, TrialKind, best_of, best_within_budget, search_front, within_budget
from dashboard.queries import (
    Role,
    add_roles,
    best_number,
    front_numbers,
    hypervolume_frame,
    knee_number,
    reference_values,
    seed_intervals,
    trials_frame,
)
from tests.dashboard.frames import frame_of, points
from tests.dashboard.studies import spec
from tests.study.builders import make_spec, make_trial

NAMES = ["accuracy"]


@pytest.fixture(scope="module")
def frame(full_url: str) -> pd.DataFrame:
    with StudyReader(full_url) as reader:
        return trials_frame(reader, "study", NAMES)


def test_roles(frame: pd.DataFrame) -> None:
    """Oracle: the fixture says which trial is what."""
    roles = add_roles(frame, spec())["role"]
    assert roles[:2].tolist() == [Role.BASELINE] * 2
    assert roles[2:8].tolist() == [
        Role.FRONT,
        Role.FRONT,
        Role.DOMINATED,
        Role.FRONT,
        Role.DOMINATED,  # equal to an earlier member
        Role.INFEASIBLE,
    ]
    assert roles[8] == Role.PRUNED
    assert roles[9:].isna().all()


def test_the_front_is_the_one_of_the_commands(frame: pd.DataFrame, full_url: str) -> None:
    study = open_store(full_url).load_study("study")
    assert front_numbers(frame, study.spec) == [item.number for item in search_front(study).trials] == [2, 3, 5]
    knee = search_front(study).knee()
    assert knee is not None
    assert knee_number(frame, study.spec) == knee.number
    best = best_within_budget(study)
    assert best is not None
    assert best_number(frame, study.spec, TrialKind.SEARCH, TrialKind.BASELINE) == best.number == 5


@settings(deadline=None, max_examples=50)
@given(points)
def test_front_knee_best_and_hypervolume_on_any_trials(values: list[tuple[float | None, int]]) -> None:
    """Oracle: the domain's own front, on whole trials; a trial without accuracy failed."""
    trials = tuple(make_trial(i, accuracy, cost) for i, (accuracy, cost) in enumerate(values))
    study = Study(spec=make_spec(), trials=trials)
    frame = frame_of(study)
    front = search_front(study)
    assert front_numbers(frame, study.spec) == [item.number for item in front.trials]
    knee = front.knee()
    assert knee_number(frame, study.spec) == (knee and knee.number)
    inside = [item for item in trials if item.draft.trainable_parameters <= study.spec.budget]
    best = best_of(study, inside)
    assert best_number(frame, study.spec, TrialKind.SEARCH) == (best and best.number)
    assert reference_values(frame, study.spec) == front.reference_point
    growth = hypervolume_frame(frame, study.spec)
    assert len(growth) == sum(accuracy is not None for accuracy, _ in values)
    if front.hypervolume is not None:
        assert growth["hypervolume"].iloc[-1] == pytest.approx(front.hypervolume)
        assert growth["hypervolume"].is_monotonic_increasing


def test_three_objectives() -> None:
    """Oracle: `Front.of`."""
    objectives = (*make_spec().objectives, COSTS["wall_time_s"])
    trials = tuple(make_trial(i, 0.5 + (i * 7 % 5) / 10, 100 + 13 * (i * 3 % 7)) for i in range(8))
    study = Study(spec=make_spec(objectives=objectives), trials=trials)
    frame = frame_of(study).assign(wall_time_s=1.5)
    front = Front.of(trials, objectives)
    assert front_numbers(frame, study.spec) == [item.number for item in front.trials]
    assert hypervolume_frame(frame, study.spec)["hypervolume"].iloc[-1] == pytest.approx(front.hypervolume)


@pytest.mark.parametrize("text", ["accuracy<=0.72", "wall_time_s<=10.7", "never_measured>=0"])
def test_constraints_bound_the_front_as_everywhere(text: str, full_url: str) -> None:
    """Oracle: `search_front` and `best_of` on the whole study; a value that was not measured keeps no bound."""
    study = open_store(full_url).load_study("study")
    bounded = replace(study, spec=replace(study.spec, constraints=(Constraint.parse(text),)))
    with StudyReader(full_url) as reader:
        frame = trials_frame(reader, "study", ["accuracy", "wall_time_s"])
    front = search_front(bounded)
    assert front_numbers(frame, bounded.spec) == [item.number for item in front.trials]
    assert reference_values(frame, bounded.spec) == front.reference_point
    best = best_of(bounded, within_budget(bounded, bounded.of_kind(TrialKind.SEARCH)))
    assert best_number(frame, bounded.spec, TrialKind.SEARCH) == (best and best.number)
    growth = hypervolume_frame(frame, bounded.spec)
    if front.hypervolume is None:
        assert growth.empty
    else:
        assert growth["hypervolume"].iloc[-1] == pytest.approx(front.hypervolume)
    roles = add_roles(frame, bounded.spec)
    assert set(roles.loc[roles["role"] == Role.FRONT, "number"]) == {item.number for item in front.trials}
    assert (roles["role"] == Role.INFEASIBLE).sum() >= 2


def test_intervals_over_seeds(frame: pd.DataFrame) -> None:
    """Oracle: scipy's t interval of the three confirmations."""
    found = seed_intervals(frame, "accuracy")
    values = np.array([0.74, 0.70, 0.72])
    low, high = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
    assert found[["number", "n_seeds"]].to_numpy().tolist() == [[5, 3]]
    assert found[["mean", "low", "high"]].iloc[0].tolist() == pytest.approx([values.mean(), low, high])
    assert seed_intervals(frame, "never measured").empty
