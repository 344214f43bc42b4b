"""The part of the store's contract that concerns values: copies, and exactness to the last bit."""

from __future__ import annotations

import json
import struct
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autopeft.store import TrialStore
from autopeft.study import (
    REPORT_SPLIT,
    SEARCH_SPLIT,
    CurvePoint,
    Failure,
    Fidelity,
    Measurement,
    TrialState,
)
from tests.store.builders import claimed, make_draft, make_measurement, make_point, make_spec

FINITE = st.floats(allow_nan=False, allow_infinity=False)
# Every code point: NUL, lone surrogates, noncharacters and emoji included.
TEXT = st.text(st.characters(codec=None, categories=None), max_size=40)
NAMES = st.text(min_size=1, max_size=12)
NUMBERS = st.dictionaries(NAMES, FINITE, max_size=4)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | FINITE | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
POINTS = st.builds(CurvePoint, step=st.integers(0, 2**40), epoch=FINITE, metrics=NUMBERS, wall_time_s=st.floats(0, 1e9))
MEASUREMENTS = st.builds(
    Measurement,
    split=st.sampled_from([SEARCH_SPLIT, REPORT_SPLIT]),
    fidelity=st.builds(Fidelity, train_examples=st.integers(1, 10**9), epochs=st.integers(1, 1000)),
    seed=st.integers(-(2**63), 2**63 - 1),
    metrics=NUMBERS,
    costs=NUMBERS,
    environment=st.dictionaries(NAMES, JSON_VALUES, max_size=3),
    curve=st.lists(POINTS, max_size=3).map(tuple),
    predictions=st.none()
    | st.lists(st.integers(0, 70_000).map(float), max_size=20).map(tuple)
    | st.lists(st.floats(allow_nan=False), max_size=20).map(tuple),
)
FAILURES = st.builds(Failure, reason=TEXT, message=TEXT, traceback=st.none() | TEXT)
#: The database outlives an example, so every example makes a study of its own; and each store inherits the same tests.
IN_ONE_STORE = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.differing_executors,
    ],
)


def bits(values: object) -> str:
    """A text that differs wherever a float differs in a bit, -0.0 and 0.0 included."""

    def show(value: object) -> object:
        if isinstance(value, float):
            return struct.pack("<d", value).hex()
        if isinstance(value, dict):
            return {key: show(item) for key, item in value.items()}
        return [show(item) for item in value] if isinstance(value, list | tuple) else value

    return json.dumps(show(values), sort_keys=True)


class ValueContract:
    """Pass by value, and round trips of generated values."""

    def test_what_is_returned_is_a_copy(self, store: TrialStore, study: str) -> None:
        store.set_attribute(study, "probe", {"x": [1]})
        claimed(store, study)
        store.add_point(study, 0, "w", make_point(1))
        store.complete_trial(study, 0, "w", [make_measurement()])
        store.set_note(study, 0, "n", {"y": 1})
        before = store.load_study(study)
        for read in (lambda: store.load_study(study).trials[0], lambda: store.load_trial(study, 0)):
            trial = read()
            trial.draft.params["rank"] = -1  # type: ignore[index]
            trial.notes["n"]["y"] = -1  # type: ignore[index]
            trial.curve[0].metrics["train_loss"] = -1  # type: ignore[index]
            trial.measurements[0].metrics["accuracy"] = -1  # type: ignore[index]
            trial.measurements[0].costs["wall_time_s"] = -1  # type: ignore[index]
            trial.measurements[0].environment["versions"]["torch"] = "x"
            trial.measurements[0].curve[0].metrics["accuracy"] = -1  # type: ignore[index]
        loaded = store.load_study(study)
        loaded.spec.task["name"] = "x"  # type: ignore[index]
        loaded.attributes["probe"]["x"].append(2)
        store.list_studies()[0].spec.task["name"] = "x"  # type: ignore[index]
        assert store.load_study(study) == before

    def test_what_was_given_is_copied(self, store: TrialStore, study: str) -> None:
        params = {"rank": 1}
        store.add_trial(study, replace(make_draft(), params=params))
        params["rank"] = 2
        store.claim_trial(study, "w", lease_s=60)
        metrics = {"accuracy": 0.5}
        store.add_point(study, 0, "w", replace(make_point(1), metrics=metrics))
        store.complete_trial(study, 0, "w", [replace(make_measurement(), metrics=metrics)])
        metrics["accuracy"] = 0.7
        attribute = {"x": 1}
        store.set_attribute(study, "k", attribute)
        attribute["x"] = 2
        study_now = store.load_study(study)
        trial = study_now.trials[0]
        assert trial.draft.params == {"rank": 1}
        assert trial.curve[0].metrics == trial.measurements[0].metrics == {"accuracy": 0.5}
        assert study_now.attributes == {"k": {"x": 1}}

    def test_a_loaded_study_does_not_change_later(self, store: TrialStore, study: str) -> None:
        store.add_trial(study, make_draft())
        loaded = store.load_study(study)
        store.claim_trial(study, "w", lease_s=60)
        assert loaded.trials[0].state is TrialState.WAITING

    @IN_ONE_STORE
    @given(measurement=MEASUREMENTS, points=st.lists(POINTS, max_size=4, unique_by=lambda point: point.step))
    def test_numbers_come_back_bit_for_bit(
        self, store: TrialStore, measurement: Measurement, points: list[CurvePoint]
    ) -> None:
        name = f"study {len(store.list_studies())}"
        store.create_study(make_spec(name))
        claimed(store, name)
        for point in points:
            store.add_point(name, 0, "w", point)
        store.complete_trial(name, 0, "w", [measurement])
        trial = store.load_trial(name, 0)
        (loaded,) = trial.measurements
        assert loaded == measurement
        for field in ("metrics", "costs", "environment", "predictions"):
            assert bits(getattr(loaded, field)) == bits(getattr(measurement, field))
        ordered = sorted(points, key=lambda point: point.step)
        assert trial.curve == tuple(ordered)
        assert bits([point.metrics for point in trial.curve]) == bits([point.metrics for point in ordered])

    @IN_ONE_STORE
    @given(failure=FAILURES, label=st.none() | TEXT, worker=TEXT.filter(bool), seed=st.integers(-(2**63), 2**63 - 1))
    def test_texts_come_back_exactly(
        self, store: TrialStore, failure: Failure, label: str | None, worker: str, seed: int
    ) -> None:
        name = f"study {len(store.list_studies())}"
        store.create_study(make_spec(name))
        trial = claimed(store, name, worker, label=label, seed=seed)
        assert (trial.draft.label, trial.worker, trial.draft.seed) == (label, worker, seed)
        assert store.fail_trial(name, 0, worker, failure).failure == failure

    @IN_ONE_STORE
    @given(value=JSON_VALUES)
    def test_attributes_come_back_exactly(self, store: TrialStore, value: object) -> None:
        store.ensure_study(make_spec())
        store.set_attribute("s", "k", value)
        assert bits(store.load_study("s").attributes["k"]) == bits(value)
