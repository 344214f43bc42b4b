"""The contract of `TrialStore` as tests: a store proves itself by subclassing `StoreContract` with one fixture."""

from __future__ import annotations

import json
import struct
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autopeft.exceptions import NotFoundError, StudyMismatchError, TrialConflictError
from autopeft.store import LOST_WORKER, TrialStore
from autopeft.study import (
    REPORT_SPLIT,
    SEARCH_SPLIT,
    CurvePoint,
    Failure,
    Fidelity,
    Measurement,
    Trial,
    TrialKind,
    TrialState,
)
from tests.store.builders import FAILURE, FakeClock, make_draft, make_measurement, make_point, make_spec

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


class StoreContract:
    """What every store promises. Subclasses give the fixture ``store``, built with the fixture ``clock``."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def study(self, store: TrialStore) -> str:
        store.create_study(make_spec("s"))
        return "s"

    def running(self, store: TrialStore, study: str, worker: str = "w", **draft: object) -> Trial:
        store.add_trial(study, make_draft(**draft))  # type: ignore[arg-type]
        trial = store.claim_trial(study, worker, lease_s=60)
        assert trial is not None
        return trial

    # Studies

    def test_is_a_trial_store(self, store: TrialStore) -> None:
        assert isinstance(store, TrialStore)

    def test_created_study_comes_back_as_it_was(self, store: TrialStore) -> None:
        created = store.create_study(make_spec("Größe 🙂 'x' \"y\" %"))
        loaded = store.load_study("Größe 🙂 'x' \"y\" %")
        assert created == loaded
        assert loaded.spec == make_spec("Größe 🙂 'x' \"y\" %")
        assert (loaded.trials, loaded.attributes) == ((), {})

    def test_create_refuses_a_taken_name_even_with_equal_settings(self, store: TrialStore, study: str) -> None:
        with pytest.raises(StudyMismatchError, match="'s' exists already"):
            store.create_study(make_spec("s"))

    def test_ensure_creates_then_loads(self, store: TrialStore) -> None:
        store.ensure_study(make_spec())
        store.add_trial("s", make_draft())
        assert len(store.ensure_study(make_spec()).trials) == 1

    def test_ensure_takes_a_tuple_for_the_list_it_was_stored_as(self, store: TrialStore) -> None:
        spec = replace(make_spec(), task={"name": "toy", "nested": [("a", "b")]})
        store.ensure_study(spec)
        assert store.ensure_study(spec).spec.task["nested"] == [["a", "b"]]

    def test_ensure_lists_every_difference_and_changes_nothing(self, store: TrialStore, study: str) -> None:
        before = store.load_study(study)
        with pytest.raises(StudyMismatchError) as caught:
            store.ensure_study(make_spec(budget=5, seed=9))
        assert "budget: 5 here, 1000 there" in str(caught.value)
        assert "seed: 9 here, 0 there" in str(caught.value)
        assert store.load_study(study) == before

    def test_unknown_study_is_named_with_the_nearest(self, store: TrialStore) -> None:
        store.create_study(make_spec("reviews"))
        with pytest.raises(NotFoundError, match=r"no study named 'review' in .*Did you mean 'reviews'"):
            store.load_study("review")

    def test_unknown_study_everywhere(self, store: TrialStore) -> None:
        calls = [
            lambda: store.load_study("x"),
            lambda: store.load_trial("x", 0),
            lambda: store.set_attribute("x", "k", 1),
            lambda: store.set_note("x", 0, "k", 1),
            lambda: store.add_trial("x", make_draft()),
            lambda: store.claim_trial("x", "w", lease_s=1),
            lambda: store.heartbeat("x", 0, "w", 1),
            lambda: store.add_point("x", 0, "w", make_point(1)),
            lambda: store.complete_trial("x", 0, "w", [make_measurement()]),
            lambda: store.fail_trial("x", 0, "w", FAILURE),
            lambda: store.release_trial("x", 0, "w"),
            lambda: store.release_expired("x"),
            lambda: store.running_workers("x"),
        ]
        for call in calls:
            with pytest.raises(NotFoundError, match="no study named 'x'"):
                call()

    def test_unknown_trial_everywhere(self, store: TrialStore, study: str) -> None:
        store.add_trial(study, make_draft())
        for number in (-1, 1):
            calls = [
                lambda n=number: store.load_trial(study, n),
                lambda n=number: store.set_note(study, n, "k", 1),
                lambda n=number: store.heartbeat(study, n, "w", 1),
                lambda n=number: store.add_point(study, n, "w", make_point(1)),
                lambda n=number: store.complete_trial(study, n, "w", [make_measurement()]),
                lambda n=number: store.fail_trial(study, n, "w", FAILURE),
                lambda n=number: store.release_trial(study, n, "w"),
                lambda n=number: store.add_trial(study, make_draft(9, kind=TrialKind.CONFIRMATION, parent=n)),
            ]
            for call in calls:
                with pytest.raises(NotFoundError, match=f"no trial {number} in study 's'; it has trials 0 to 0"):
                    call()

    def test_attributes_are_replaced_and_keep_null(self, store: TrialStore, study: str) -> None:
        store.set_attribute(study, "probe", {"seconds": 0.1})
        store.set_attribute(study, "probe", {"seconds": 0.2, "layers": (1, 2)})
        store.set_attribute(study, "none", None)
        store.set_attribute(study, "text", "5")
        assert store.load_study(study).attributes == {
            "probe": {"seconds": 0.2, "layers": [1, 2]},
            "none": None,
            "text": "5",
        }

    @pytest.mark.parametrize("value", [float("nan"), {"x": [float("inf")]}, object(), {1, 2}])
    def test_attributes_refuse_what_json_cannot_say(self, store: TrialStore, study: str, value: object) -> None:
        with pytest.raises(ValueError, match="attribute 'k' must be JSON-ready"):
            store.set_attribute(study, "k", value)
        assert store.load_study(study).attributes == {}

    def test_summaries_count_states_and_know_the_last_activity(self, store: TrialStore, clock: FakeClock) -> None:
        created = clock.now
        store.create_study(make_spec("b"))
        clock.advance(1)
        store.create_study(make_spec("a"))
        for rank in (1, 2, 3, 4):
            store.add_trial("b", make_draft(rank))
        for _ in range(3):
            store.claim_trial("b", "w", lease_s=60)
        store.complete_trial("b", 0, "w", [make_measurement()])
        store.fail_trial("b", 1, "w", FAILURE)
        beaten = clock.advance(10)
        store.heartbeat("b", 2, "w", 60)
        first, second = store.list_studies()
        assert (first.name, second.name) == ("b", "a")
        assert first.spec == make_spec("b")
        assert first.n_trials == {
            TrialState.WAITING: 1,
            TrialState.RUNNING: 1,
            TrialState.COMPLETE: 1,
            TrialState.PRUNED: 0,
            TrialState.FAILED: 1,
        }
        assert first.n_trials_total == 4
        assert (first.created_at, first.last_activity_at) == (created, beaten)
        assert second.created_at == second.last_activity_at == created + timedelta(seconds=1)
        assert second.n_trials_total == 0

    # Adding

    def test_numbers_are_consecutive_per_study_over_all_kinds(self, store: TrialStore, study: str) -> None:
        store.create_study(make_spec("other"))
        store.add_trial("other", make_draft(1))
        added = [
            store.add_trial(study, make_draft(1, kind=TrialKind.BASELINE, label="LoRA r=1")),
            store.add_trial(study, make_draft(2)),
            store.add_trial(study, make_draft(2, kind=TrialKind.CONFIRMATION, parent=1)),
        ]
        assert [trial.number for trial in added] == [0, 1, 2]
        assert store.load_study(study).trials == tuple(added)

    def test_added_trial_is_waiting_and_keeps_its_draft(self, store: TrialStore, study: str, clock: FakeClock) -> None:
        draft = make_draft(label="ein Größenvergleich")
        trial = store.add_trial(study, draft)
        assert trial == Trial(number=0, draft=draft, state=TrialState.WAITING, created_at=clock.now)
        assert trial.draft.params == draft.params
        assert [type(value) for value in trial.draft.params.values()] == [int, bool, str, float]  # type: ignore[union-attr]
        assert trial.configuration.fingerprint == draft.configuration.fingerprint
        assert store.add_trial(study, replace(make_draft(5), params=None)).draft.params is None

    def test_number_must_be_the_next(self, store: TrialStore, study: str) -> None:
        store.add_trial(study, make_draft(1), number=0)
        for number in (0, 2, -1):
            with pytest.raises(TrialConflictError, match=f"the next trial of study 's' is 1, not {number}"):
                store.add_trial(study, make_draft(2), number=number)
        assert store.add_trial(study, make_draft(2), number=1).number == 1

    @pytest.mark.parametrize("state", list(TrialState))
    def test_identity_is_taken_in_every_state(self, store: TrialStore, study: str, state: TrialState) -> None:
        store.add_trial(study, make_draft())
        if state is not TrialState.WAITING:
            store.claim_trial(study, "w", lease_s=60)
        if state in (TrialState.COMPLETE, TrialState.PRUNED):
            store.complete_trial(study, 0, "w", [make_measurement()], state)
        if state is TrialState.FAILED:
            store.fail_trial(study, 0, "w", FAILURE)
        assert store.load_trial(study, 0).state is state
        with pytest.raises(TrialConflictError, match=r"already has this configuration.*: trial 0\."):
            store.add_trial(study, make_draft(kind=TrialKind.BASELINE))
        assert len(store.load_study(study).trials) == 1

    def test_identity_is_configuration_fidelity_seed_and_role(self, store: TrialStore, study: str) -> None:
        drafts = [
            make_draft(),
            make_draft(5),
            make_draft(seed=1),
            make_draft(fidelity=Fidelity(train_examples=100, epochs=3)),
            make_draft(fidelity=Fidelity(train_examples=101, epochs=2)),
            make_draft(kind=TrialKind.CONFIRMATION, parent=0),
        ]
        for draft in drafts:
            store.add_trial(study, draft)
        assert [trial.draft for trial in store.load_study(study).trials] == drafts
        store.create_study(make_spec("other"))
        store.add_trial("other", make_draft())

    def test_a_refused_trial_leaves_no_gap(self, store: TrialStore, study: str) -> None:
        store.add_trial(study, make_draft(1))
        with pytest.raises(TrialConflictError):
            store.add_trial(study, make_draft(1))
        assert store.add_trial(study, make_draft(2)).number == 1

    # Claiming

    def test_claims_go_by_number_and_end(self, store: TrialStore, study: str, clock: FakeClock) -> None:
        for rank in (1, 2):
            store.add_trial(study, make_draft(rank))
        now = clock.advance(5)
        first = store.claim_trial(study, "a", lease_s=60)
        second = store.claim_trial(study, "b", lease_s=60)
        assert first is not None
        assert second is not None
        assert (first.number, first.state, first.attempts, first.worker) == (0, TrialState.RUNNING, 1, "a")
        assert first.started_at == now
        assert (second.number, second.worker) == (1, "b")
        assert store.claim_trial(study, "c", lease_s=60) is None
        assert store.running_workers(study) == {0: "a", 1: "b"}
        assert store.load_trial(study, 0) == first

    def test_claims_choose_by_kind_and_number(self, store: TrialStore, study: str) -> None:
        kinds = [TrialKind.SEARCH, TrialKind.BASELINE, TrialKind.SEARCH, TrialKind.SEARCH]
        for rank, kind in enumerate(kinds, start=1):
            store.add_trial(study, make_draft(rank, kind=kind))

        def claim(**choice: object) -> int | None:
            trial = store.claim_trial(study, "w", lease_s=60, **choice)  # type: ignore[arg-type]
            return None if trial is None else trial.number

        assert claim(kinds=[]) is None
        assert claim(numbers=[]) is None
        assert claim(kinds=[TrialKind.CONFIRMATION]) is None
        assert claim(kinds={TrialKind.BASELINE}) == 1
        assert claim(numbers=[3, 2]) == 2
        assert claim(kinds=[TrialKind.SEARCH], numbers=[1, 3]) == 3
        assert claim() == 0

    @pytest.mark.parametrize("lease_s", [0, -1, float("nan"), float("inf")])
    def test_leases_last_a_positive_time(self, store: TrialStore, study: str, lease_s: float) -> None:
        store.add_trial(study, make_draft())
        with pytest.raises(ValueError, match="lease_s > 0"):
            store.claim_trial(study, "w", lease_s=lease_s)
        store.claim_trial(study, "w", lease_s=1)
        with pytest.raises(ValueError, match="lease_s > 0"):
            store.heartbeat(study, 0, "w", lease_s)
        with pytest.raises(ValueError, match="a worker needs a name"):
            store.claim_trial(study, "", lease_s=1)

    def test_threads_never_claim_the_same_trial(self, store: TrialStore, study: str) -> None:
        for rank in range(1, 25):
            store.add_trial(study, make_draft(rank))
        barrier = threading.Barrier(4)

        def work(worker: str) -> list[int]:
            barrier.wait()
            numbers = []
            while (trial := store.claim_trial(study, worker, lease_s=60)) is not None:
                numbers.append(trial.number)
            return numbers

        with ThreadPoolExecutor(4) as pool:
            claimed = [number for numbers in pool.map(work, "abcd") for number in numbers]
        assert sorted(claimed) == list(range(24))
        assert {trial.attempts for trial in store.load_study(study).trials} == {1}

    def test_threads_adding_the_same_trials_add_each_once(self, store: TrialStore, study: str) -> None:
        barrier = threading.Barrier(4)

        def work(_: int) -> Counter[str]:
            barrier.wait()
            outcome: Counter[str] = Counter()
            for rank in range(1, 11):
                try:
                    store.add_trial(study, make_draft(rank))
                    outcome["added"] += 1
                except TrialConflictError:
                    outcome["conflict"] += 1
            return outcome

        with ThreadPoolExecutor(4) as pool:
            total = sum(pool.map(work, range(4)), Counter())
        assert total == {"added": 10, "conflict": 30}
        trials = store.load_study(study).trials
        assert [trial.number for trial in trials] == list(range(10))
        assert len({trial.draft.identity for trial in trials}) == 10

    # Leases

    def test_heartbeat_extends_the_lease(self, store: TrialStore, study: str, clock: FakeClock) -> None:
        self.running(store, study)
        clock.advance(59)
        store.heartbeat(study, 0, "w", 60)
        clock.advance(59)
        assert store.release_expired(study) == []
        clock.advance(1)
        assert store.release_expired(study) == [0]

    def test_an_expired_lease_that_nobody_ended_is_still_the_holders(
        self, store: TrialStore, study: str, clock: FakeClock
    ) -> None:
        self.running(store, study)
        clock.advance(1000)
        store.heartbeat(study, 0, "w", 60)
        assert store.release_expired(study) == []
        clock.advance(1000)
        assert store.complete_trial(study, 0, "w", [make_measurement()]).state is TrialState.COMPLETE

    def test_a_lost_trial_waits_again_and_its_old_worker_can_do_nothing(
        self, store: TrialStore, study: str, clock: FakeClock
    ) -> None:
        self.running(store, study, "old")
        clock.advance(60)
        assert store.release_expired(study) == [0]
        waiting = store.load_trial(study, 0)
        assert (waiting.state, waiting.attempts, waiting.started_at) == (TrialState.WAITING, 1, None)
        assert store.running_workers(study) == {}
        self.assert_lost(store, study, "old", "is WAITING")
        again = store.claim_trial(study, "new", lease_s=60)
        assert again is not None
        assert (again.attempts, again.worker) == (2, "new")
        self.assert_lost(store, study, "old", "is held by 'new'")
        store.complete_trial(study, 0, "new", [make_measurement()])
        self.assert_lost(store, study, "old", "is COMPLETE")
        self.assert_lost(store, study, "new", "is COMPLETE")

    def assert_lost(self, store: TrialStore, study: str, worker: str, match: str) -> None:
        before = store.load_study(study)
        for call in (
            lambda: store.heartbeat(study, 0, worker, 60),
            lambda: store.add_point(study, 0, worker, make_point(1)),
            lambda: store.complete_trial(study, 0, worker, [make_measurement()]),
            lambda: store.fail_trial(study, 0, worker, FAILURE),
            lambda: store.release_trial(study, 0, worker),
        ):
            with pytest.raises(TrialConflictError, match=match):
                call()
        assert store.load_study(study) == before

    def test_dead_workers_lose_their_leases_at_once(self, store: TrialStore, study: str) -> None:
        for rank, worker in ((1, "dead"), (2, "alive"), (3, "dead")):
            self.running(store, study, worker, rank=rank)
        assert store.release_expired(study, dead_workers=["dead", "unknown"]) == [0, 2]
        assert store.running_workers(study) == {1: "alive"}
        assert store.release_expired(study, dead_workers=["dead"]) == []

    def test_too_many_attempts_fail_as_lost_worker(self, store: TrialStore, study: str, clock: FakeClock) -> None:
        store.add_trial(study, make_draft())
        for attempt in (1, 2, 3):
            assert store.claim_trial(study, f"w{attempt}", lease_s=60) is not None
            now = clock.advance(61)
            assert store.release_expired(study, max_attempts=3) == [0]
        trial = store.load_trial(study, 0)
        assert (trial.state, trial.attempts, trial.finished_at) == (TrialState.FAILED, 3, now)
        assert trial.failure is not None
        assert trial.failure.reason == LOST_WORKER
        assert "3 times" in trial.failure.message
        assert "w3" in trial.failure.message
        assert store.claim_trial(study, "w", lease_s=60) is None
        with pytest.raises(ValueError, match="max_attempts >= 1"):
            store.release_expired(study, max_attempts=0)

    def test_release_gives_back_without_counting(self, store: TrialStore, study: str) -> None:
        for _ in range(5):
            self_made = store.load_study(study).trials
            if not self_made:
                store.add_trial(study, make_draft())
            assert store.claim_trial(study, "w", lease_s=60) is not None
            store.release_trial(study, 0, "w")
        trial = store.load_trial(study, 0)
        assert (trial.state, trial.attempts, trial.started_at) == (TrialState.WAITING, 0, None)

    def test_a_worker_that_claims_its_own_lost_trial_again_starts_afresh(
        self, store: TrialStore, study: str, clock: FakeClock
    ) -> None:
        self.running(store, study)
        store.add_point(study, 0, "w", make_point(7))
        clock.advance(60)
        store.release_expired(study)
        assert [point.step for point in store.load_trial(study, 0).curve] == [7]
        again = store.claim_trial(study, "w", lease_s=60)
        assert again is not None
        assert again.curve == ()
        store.add_point(study, 0, "w", make_point(1))
        assert store.load_trial(study, 0).curve == (make_point(1),)

    # Results

    def test_points_are_ordered_and_replaced_by_step(self, store: TrialStore, study: str) -> None:
        self.running(store, study)
        for point in (make_point(3), make_point(1), make_point(3, loss=0.25)):
            store.add_point(study, 0, "w", point)
        assert store.load_trial(study, 0).curve == (make_point(1), make_point(3, loss=0.25))
        store.fail_trial(study, 0, "w", FAILURE)
        assert len(store.load_study(study).trials[0].curve) == 2

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_points_are_finite(self, store: TrialStore, study: str, value: float) -> None:
        self.running(store, study)
        for point in (
            CurvePoint(step=1, epoch=value, metrics={}, wall_time_s=1),
            CurvePoint(step=1, epoch=1, metrics={}, wall_time_s=value),
            CurvePoint(step=1, epoch=1, metrics={"train_loss": value}, wall_time_s=1),
        ):
            with pytest.raises(ValueError, match="must be finite"):
                store.add_point(study, 0, "w", point)
        with pytest.raises(ValueError, match="step >= 0"):
            store.add_point(study, 0, "w", replace(make_point(1), step=-1))
        assert store.load_trial(study, 0).curve == ()

    @pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.PRUNED])
    def test_completion_keeps_measurements_in_order(
        self, store: TrialStore, study: str, clock: FakeClock, state: TrialState
    ) -> None:
        started = clock.now
        self.running(store, study)
        now = clock.advance(3)
        given_ = [
            make_measurement(0.9, split=REPORT_SPLIT, seed=2),
            make_measurement(1 / 3, seed=1),
            replace(make_measurement(0.1), predictions=None, curve=(), environment={}),
        ]
        trial = store.complete_trial(study, 0, "w", given_, state)
        assert trial.measurements == tuple(given_)
        assert (trial.state, trial.started_at, trial.finished_at, trial.failure) == (state, started, now, None)
        assert store.load_study(study).trials == (trial,)

    def test_pruned_needs_no_measurement_and_complete_does(self, store: TrialStore, study: str) -> None:
        self.running(store, study)
        with pytest.raises(ValueError, match="at least one measurement"):
            store.complete_trial(study, 0, "w", [])
        assert store.complete_trial(study, 0, "w", [], TrialState.PRUNED).measurements == ()

    @pytest.mark.parametrize("state", [TrialState.WAITING, TrialState.RUNNING, TrialState.FAILED])
    def test_completion_is_complete_or_pruned(self, store: TrialStore, study: str, state: TrialState) -> None:
        self.running(store, study)
        with pytest.raises(ValueError, match="COMPLETE or PRUNED"):
            store.complete_trial(study, 0, "w", [make_measurement()], state)

    def test_repeated_measurements_are_refused_whole(self, store: TrialStore, study: str) -> None:
        self.running(store, study)
        with pytest.raises(ValueError, match="must differ in split, fidelity or seed"):
            store.complete_trial(study, 0, "w", [make_measurement(0.1), make_measurement(0.2)])
        assert store.load_trial(study, 0).state is TrialState.RUNNING

    def test_failure_keeps_a_long_traceback(self, store: TrialStore, study: str, clock: FakeClock) -> None:
        self.running(store, study)
        failure = Failure(reason="error", message="böse\x00\udc80", traceback="line\n" * 50_000)
        trial = store.fail_trial(study, 0, "w", failure)
        assert (trial.state, trial.failure, trial.finished_at) == (TrialState.FAILED, failure, clock.now)
        assert trial.measurements == ()

    def test_notes_are_set_in_every_state(self, store: TrialStore, study: str) -> None:
        store.add_trial(study, make_draft())
        store.set_note(study, 0, "a", 1)
        store.claim_trial(study, "w", lease_s=60)
        store.set_note(study, 0, "b", [1, {"c": None}])
        store.complete_trial(study, 0, "w", [make_measurement()])
        store.set_note(study, 0, "a", "zwei")
        assert store.load_trial(study, 0).notes == {"a": "zwei", "b": [1, {"c": None}]}
        with pytest.raises(ValueError, match="note 'k'"):
            store.set_note(study, 0, "k", float("nan"))

    # Pass by value

    def test_what_is_returned_is_a_copy(self, store: TrialStore, study: str) -> None:
        store.set_attribute(study, "probe", {"x": [1]})
        self.running(store, study)
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

    # Exactness

    @IN_ONE_STORE
    @given(measurement=MEASUREMENTS, points=st.lists(POINTS, max_size=4, unique_by=lambda point: point.step))
    def test_numbers_come_back_bit_for_bit(
        self, store: TrialStore, measurement: Measurement, points: list[CurvePoint]
    ) -> None:
        name = f"study {len(store.list_studies())}"
        store.create_study(make_spec(name))
        self.running(store, name)
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
        trial = self.running(store, name, worker, label=label, seed=seed)
        assert (trial.draft.label, trial.worker, trial.draft.seed) == (label, worker, seed)
        assert store.fail_trial(name, 0, worker, failure).failure == failure

    @IN_ONE_STORE
    @given(value=JSON_VALUES)
    def test_attributes_come_back_exactly(self, store: TrialStore, value: object) -> None:
        store.ensure_study(make_spec())
        store.set_attribute("s", "k", value)
        assert bits(store.load_study("s").attributes["k"]) == bits(value)
