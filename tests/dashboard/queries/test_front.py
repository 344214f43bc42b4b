from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from autopeft.objectives import COSTS, Constraint, hypervolume, to_maximization
from autopeft.store import StudyReader, open_store
from autopeft.study import Front, Study, TrialKind, best_of, best_within_budget, search_front, within_budget
from dashboard.queries import (
    Role,
    add_roles,
    best_number,
    front_numbers,
    hypervolume_frame,
    is_rival,
    knee_number,
    reference_values,
    rival_band,
    seed_intervals,
    trials_frame,
)
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


points = st.lists(
    st.tuples(st.one_of(st.none(), st.integers(0, 6).map(lambda n: n / 8)), st.integers(0, 9).map(lambda n: 700 * n)),
    max_size=12,
)


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


@settings(deadline=None, max_examples=50)
@given(points)
def test_the_growing_hypervolume_is_that_of_every_prefix(values: list[tuple[float | None, int]]) -> None:
    """Oracle: the hypervolume of each prefix, computed anew."""
    measured = [(accuracy, cost) for accuracy, cost in values if accuracy is not None]
    study = Study(spec=make_spec(), trials=tuple(make_trial(i, a, c) for i, (a, c) in enumerate(measured)))
    growth = hypervolume_frame(frame_of(study), study.spec, reference=(-0.5, 8000.0))
    y = to_maximization(np.array(measured, dtype=float).reshape(-1, 2), study.spec.objectives)
    origin = to_maximization([(-0.5, 8000.0)], study.spec.objectives)[0]
    expected = [hypervolume(y[: i + 1], origin) for i in range(len(y))]
    assert growth["hypervolume"].tolist() == pytest.approx(expected)


def frame_of(study: Study) -> pd.DataFrame:
    moment = pd.Timestamp("2026-01-01", tz="UTC")
    rows = [
        {
            "number": item.number,
            "kind": item.kind.value,
            "state": item.state.value,
            "trainable_parameters": item.draft.trainable_parameters,
            "accuracy": item.value("accuracy"),
            "started_at": moment,
            "finished_at": moment + pd.Timedelta(hours=item.number + 1),
        }
        for item in study.trials
    ]
    columns = ["number", "kind", "state", "trainable_parameters", "accuracy", "started_at", "finished_at"]
    return pd.DataFrame(rows, columns=columns).astype({"accuracy": "float64", "trainable_parameters": "float64"})


def test_time_counts_from_the_first_start() -> None:
    study = Study(spec=make_spec(), trials=tuple(make_trial(i, 0.5 + i / 10, 100) for i in range(3)))
    growth = hypervolume_frame(frame_of(study), study.spec)
    assert growth["hours"].tolist() == [1.0, 2.0, 3.0]
    assert growth["number"].tolist() == [0, 1, 2]


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


def test_a_rival_is_the_same_search_at_random() -> None:
    mine = make_spec("mine", sampler="bayesian")
    assert is_rival(mine, make_spec("other", sampler="random", seed=3))
    assert not is_rival(mine, make_spec("other", sampler="bayesian"))
    assert not is_rival(mine, make_spec("other", sampler="random", budget=7))
    assert not is_rival(make_spec("mine"), make_spec("mine"))
    assert not is_rival(mine, replace(make_spec("other"), task={"name": "else"}))


def test_the_band_covers_what_all_random_searches_reached() -> None:
    curves = [pd.DataFrame({"hypervolume": values}) for values in ([1.0, 2.0, 9.0], [3.0, 4.0], [0.0, 8.0, 8.0])]
    band = rival_band(curves)
    assert band.to_numpy().tolist() == [[1, 0, 1, 3], [2, 2, 4, 8]]
    assert rival_band([]).empty


def test_intervals_over_seeds(frame: pd.DataFrame) -> None:
    """Oracle: scipy's t interval of the three confirmations."""
    found = seed_intervals(frame, "accuracy")
    values = np.array([0.74, 0.70, 0.72])
    low, high = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
    assert found[["number", "n_seeds"]].to_numpy().tolist() == [[5, 3]]
    assert found[["mean", "low", "high"]].iloc[0].tolist() == pytest.approx([values.mean(), low, high])
    assert seed_intervals(frame, "never measured").empty
