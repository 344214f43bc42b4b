"""The part of the store's contract that concerns leases, results and notes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autopeft.exceptions import NotFoundError, TrialConflictError
from autopeft.store import LOST_WORKER, TrialStore
from autopeft.study import (
    REPORT_SPLIT,
    CurvePoint,
    Failure,
    Rung,
    TrialState,
)
from tests.store.builders import FAILURE, FakeClock, claimed, ended, make_draft, make_measurement, make_point


class LeaseContract:
    """Heartbeats, lost workers and how trials end."""

    def test_heartbeat_extends_the_lease(self, store: TrialStore, study: str, clock: FakeClock) -> None:
        claimed(store, study)
        clock.advance(59)
        store.heartbeat(study, 0, "w", 60)
        clock.advance(59)
        assert store.release_expired(study) == []
        clock.advance(1)
        assert store.release_expired(study) == [0]

    def test_an_expired_lease_that_nobody_ended_is_still_the_holders(
        self, store: TrialStore, study: str, clock: FakeClock
    ) -> None:
        claimed(store, study)
        clock.advance(1000)
        store.heartbeat(study, 0, "w", 60)
        assert store.release_expired(study) == []
        clock.advance(1000)
        assert store.complete_trial(study, 0, "w", [make_measurement()]).state is TrialState.COMPLETE

    def test_a_lost_trial_waits_again_and_its_old_worker_can_do_nothing(
        self, store: TrialStore, study: str, clock: FakeClock
    ) -> None:
        claimed(store, study, "old")
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
            claimed(store, study, worker, rank=rank)
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
        claimed(store, study)
        store.add_point(study, 0, "w", make_point(7))
        clock.advance(60)
        store.release_expired(study)
        assert [point.step for point in store.load_trial(study, 0).curve] == [7]
        again = store.claim_trial(study, "w", lease_s=60)
        assert again is not None
        assert again.curve == ()
        store.add_point(study, 0, "w", make_point(1))
        assert store.load_trial(study, 0).curve == (make_point(1),)

    def test_points_are_ordered_and_replaced_by_step(self, store: TrialStore, study: str) -> None:
        claimed(store, study)
        for point in (make_point(3), make_point(1), make_point(3, loss=0.25)):
            store.add_point(study, 0, "w", point)
        assert store.load_trial(study, 0).curve == (make_point(1), make_point(3, loss=0.25))
        store.fail_trial(study, 0, "w", FAILURE)
        assert len(store.load_study(study).trials[0].curve) == 2

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_points_are_finite(self, store: TrialStore, study: str, value: float) -> None:
        claimed(store, study)
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
        claimed(store, study)
        now = clock.advance(3)
        given_ = [
            make_measurement(0.9, split=REPORT_SPLIT, seed=2),
            make_measurement(1 / 3, seed=1),
            replace(make_measurement(0.1), predictions=None, curve=(), environment={}),
        ]
        given_ = [ended(item, state) for item in given_]
        trial = store.complete_trial(study, 0, "w", given_, state)
        assert trial.measurements == tuple(given_)
        assert (trial.state, trial.started_at, trial.finished_at, trial.failure) == (state, started, now, None)
        assert store.load_study(study).trials == (trial,)

    def test_pruned_needs_no_measurement_and_complete_does(self, store: TrialStore, study: str) -> None:
        claimed(store, study)
        with pytest.raises(ValueError, match="at least one measurement"):
            store.complete_trial(study, 0, "w", [])
        assert store.complete_trial(study, 0, "w", [], TrialState.PRUNED).measurements == ()

    @pytest.mark.parametrize("state", [TrialState.WAITING, TrialState.RUNNING, TrialState.FAILED])
    def test_completion_is_complete_or_pruned(self, store: TrialStore, study: str, state: TrialState) -> None:
        claimed(store, study)
        with pytest.raises(ValueError, match="COMPLETE or PRUNED"):
            store.complete_trial(study, 0, "w", [make_measurement()], state)

    def test_complete_is_measured_at_the_end_and_pruned_at_a_rung(self, store: TrialStore, study: str) -> None:
        claimed(store, study)
        for state, other in ((TrialState.COMPLETE, TrialState.PRUNED), (TrialState.PRUNED, TrialState.COMPLETE)):
            with pytest.raises(ValueError, match="COMPLETE trial is measured at its end and a PRUNED one at a rung"):
                store.complete_trial(study, 0, "w", [ended(make_measurement(), other)], state)
        assert store.load_trial(study, 0).state is TrialState.RUNNING

    def test_pruned_trial_is_continued_and_keeps_what_was_measured(
        self, store: TrialStore, study: str, clock: FakeClock
    ) -> None:
        early, late, end = (
            replace(make_measurement(value), rung=rung)
            for value, rung in (
                (0.1, Rung(step=1, n_steps=9)),
                (0.2, Rung(step=3, n_steps=9, n_examples=64)),
                (0.3, None),
            )
        )
        claimed(store, study)
        store.complete_trial(study, 0, "w", [early], TrialState.PRUNED)
        assert store.load_trial(study, 0).rung == early.rung
        waiting = store.continue_trial(study, 0)
        assert (waiting.state, waiting.attempts, waiting.started_at, waiting.finished_at) == (
            TrialState.WAITING, 0, None, None,
        )  # fmt: skip
        with pytest.raises(TrialConflictError, match="trial 0 of study 's' is WAITING; only a PRUNED one"):
            store.continue_trial(study, 0)
        store.claim_trial(study, "w", lease_s=60)
        with pytest.raises(ValueError, match="must differ in split, fidelity or seed, or in their rung"):
            store.complete_trial(study, 0, "w", [early], TrialState.PRUNED)
        store.complete_trial(study, 0, "w", [late], TrialState.PRUNED)
        store.continue_trial(study, 0)
        store.claim_trial(study, "w", lease_s=60)
        trial = store.complete_trial(study, 0, "w", [end])
        assert trial.measurements == (early, late, end)
        assert (trial.measurement(), trial.rung, trial.value("accuracy")) == (end, None, 0.3)
        assert store.load_study(study).trials == (trial,)

    def test_only_a_trial_that_is_there_and_pruned_is_continued(self, store: TrialStore, study: str) -> None:
        with pytest.raises(NotFoundError, match="no trial 0"):
            store.continue_trial(study, 0)
        claimed(store, study)
        for state in (TrialState.RUNNING, TrialState.COMPLETE):
            if state is TrialState.COMPLETE:
                store.complete_trial(study, 0, "w", [make_measurement()])
            before = store.load_trial(study, 0)
            with pytest.raises(TrialConflictError, match=f"is {state}"):
                store.continue_trial(study, 0)
            assert store.load_trial(study, 0) == before

    def test_point_of_part_of_the_split_says_so(self, store: TrialStore, study: str) -> None:
        claimed(store, study)
        points = (replace(make_point(1), n_examples=64), make_point(2))
        for point in points:
            store.add_point(study, 0, "w", point)
        assert store.load_trial(study, 0).curve == points
        measurement = replace(make_measurement(), curve=points)
        assert store.complete_trial(study, 0, "w", [measurement]).measurements == (measurement,)

    def test_repeated_measurements_are_refused_whole(self, store: TrialStore, study: str) -> None:
        claimed(store, study)
        with pytest.raises(ValueError, match="must differ in split, fidelity or seed"):
            store.complete_trial(study, 0, "w", [make_measurement(0.1), make_measurement(0.2)])
        assert store.load_trial(study, 0).state is TrialState.RUNNING

    def test_failure_keeps_a_long_traceback(self, store: TrialStore, study: str, clock: FakeClock) -> None:
        claimed(store, study)
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
