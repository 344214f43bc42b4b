"""The part of the store's contract that concerns drivers, workers and whose turn it is."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from autopeft.exceptions import DriverConflictError, NotFoundError, TrialConflictError
from autopeft.store import PATIENCE_S, DriverLease, TrialStore, WorkerFacts, WorkerState
from autopeft.study import Fidelity, TrialKind, TrialState
from tests.store.builders import FakeClock, ended, make_draft, make_measurement, make_spec

LEASE_S = 60.0


def driven(
    store: TrialStore, name: str, n_trials: int, *, executor: str = "workers", weight: float = 1.0, **draft: object
) -> None:
    """A study with so many WAITING trials and a driver."""
    store.ensure_study(make_spec(name))
    for rank in range(1, n_trials + 1):
        store.add_trial(name, make_draft(rank, **draft))  # type: ignore[arg-type]
    store.acquire_driver(name, f"driver of {name}", executor=executor, lease_s=LEASE_S, weight=weight)


def make_worker(id: str = "host:1", **changes: object) -> WorkerFacts:
    facts = WorkerFacts(
        id=id,
        host="host",
        pid=7,
        resources={"cores": 2, "memory_bytes": 2**40, "devices": ["cuda:0"]},
        versions={"torch": "2.13.0"},
        state=WorkerState.WORKING,
        study="s",
        trials=(3, 4),
        refusals={"other": "lacks backbone 'böse'\x00"},
    )
    return replace(facts, **changes)  # type: ignore[arg-type]


def take(store: TrialStore, worker: str = "w", **choice: object) -> list[tuple[str, int]]:
    found = store.claim_next(worker, lease_s=LEASE_S, **choice)  # type: ignore[arg-type]
    assert all(trial.state is TrialState.RUNNING and trial.worker == worker for _, trial in found)
    return [(name, trial.number) for name, trial in found]


class ClusterContract:
    """Who drives a study, which workers there are, and who works on what next."""

    def acquire(self, store: TrialStore, holder: str, **more: object) -> DriverLease:
        return store.acquire_driver("s", holder, **{"executor": "local", "lease_s": LEASE_S, **more})  # type: ignore[arg-type]

    def test_one_process_drives_and_the_others_learn_who(self, store: TrialStore, study: str, clock: FakeClock) -> None:
        assert store.driver(study) is None
        assert store.drivers() == []
        since = clock.now
        mine = self.acquire(store, "a", executor="ray", weight=2.5)
        assert (mine.study, mine.holder, mine.executor, mine.weight) == (study, "a", "ray", 2.5)
        now = clock.advance(59)
        other = self.acquire(store, "b")
        assert (other.holder, other.acquired_at, other.read_at, other.held_s) == ("a", since, now, 59)
        assert not other.is_expired
        assert store.driver(study) == other
        assert store.drivers() == [other]

    def test_the_lease_is_taken_over_when_it_expires_and_the_old_driver_learns_it(
        self, store: TrialStore, study: str, clock: FakeClock
    ) -> None:
        self.acquire(store, "a")
        clock.advance(59)
        store.keep_driver(study, "a", LEASE_S)
        clock.advance(59)
        assert self.acquire(store, "b").holder == "a"
        now = clock.advance(1)
        expired = store.driver(study)
        assert expired is not None
        assert expired.is_expired
        taken = self.acquire(store, "b")
        assert (taken.holder, taken.acquired_at, taken.is_expired) == ("b", now, False)
        with pytest.raises(DriverConflictError, match="'a' does not drive study 's' any more; 'b' does"):
            store.keep_driver(study, "a", LEASE_S)
        assert not store.release_driver(study, "a")
        assert store.driver(study) == taken

    def test_an_expired_lease_that_nobody_took_is_still_the_holders(
        self, store: TrialStore, study: str, clock: FakeClock
    ) -> None:
        self.acquire(store, "a")
        clock.advance(1000)
        store.keep_driver(study, "a", LEASE_S)
        assert self.acquire(store, "b").holder == "a"

    def test_who_drives_already_keeps_it_with_what_it_says_now(
        self, store: TrialStore, study: str, clock: FakeClock
    ) -> None:
        since = clock.now
        self.acquire(store, "a")
        now = clock.advance(5)
        again = self.acquire(store, "a", executor="workers", weight=3)
        assert (again.acquired_at, again.heartbeat_at, again.executor, again.weight) == (since, now, "workers", 3.0)
        assert store.driver(study) == again

    def test_a_driver_that_is_dead_does_not_count(self, store: TrialStore, study: str) -> None:
        self.acquire(store, "a")
        assert self.acquire(store, "b", dead_holders=["c"]).holder == "a"
        assert self.acquire(store, "b", dead_holders=["a"]).holder == "b"

    def test_a_released_study_has_no_driver(self, store: TrialStore, study: str) -> None:
        assert not store.release_driver(study, "a")
        self.acquire(store, "a")
        assert store.release_driver(study, "a")
        assert store.driver(study) is None
        with pytest.raises(DriverConflictError, match="'a' does not drive study 's' any more; nobody does"):
            store.keep_driver(study, "a", LEASE_S)
        assert self.acquire(store, "b").holder == "b"

    @pytest.mark.parametrize(
        ("change", "rule"),
        [
            ({"lease_s": 0.0}, "lease_s > 0"),
            ({"executor": ""}, "an executor has a name of 1 to 16 letters"),
            ({"executor": "x" * 17}, "an executor has a name of 1 to 16 letters"),
            ({"weight": 0.0}, "weight > 0"),
            ({"weight": float("nan")}, "weight > 0"),
        ],
    )
    def test_drivers_keep_rules(self, store: TrialStore, study: str, change: dict[str, object], rule: str) -> None:
        with pytest.raises(ValueError, match=rule):
            self.acquire(store, "a", **change)
        assert store.driver(study) is None

    def test_a_study_that_is_not_there_has_no_driver(self, store: TrialStore, study: str) -> None:
        for call in (
            lambda: store.acquire_driver("x", "a", executor="local", lease_s=1),
            lambda: store.keep_driver("x", "a", 1),
            lambda: store.release_driver("x", "a"),
            lambda: store.driver("x"),
            lambda: store.claim_next("w", lease_s=1, studies=["x"]),
        ):
            with pytest.raises(NotFoundError, match="no study named 'x'"):
                call()

    def test_workers_announce_themselves_and_are_renewed(self, store: TrialStore, clock: FakeClock) -> None:
        since = clock.now
        store.announce_worker(make_worker("b"), LEASE_S)
        clock.advance(1)
        store.announce_worker(make_worker("a"), LEASE_S)
        now = clock.advance(58)
        changed = make_worker("b", state=WorkerState.IDLE, study=None, trials=(), refusals={})
        store.announce_worker(changed, LEASE_S)
        read = clock.advance(10)
        first, second = store.workers()
        assert first.facts == changed
        assert (first.announced_at, first.heartbeat_at, first.read_at) == (since, now, read)
        assert second.facts == make_worker("a")
        assert (first.is_expired, second.is_expired) == (False, True)
        assert store.retire_worker("b")
        assert not store.retire_worker("b")
        assert [record.facts.id for record in store.workers()] == ["a"]

    @pytest.mark.parametrize("change", [{"resources": {"x": float("nan")}}, {"versions": {"x": object()}}])
    def test_workers_say_what_is_json_ready(self, store: TrialStore, change: dict[str, object]) -> None:
        with pytest.raises(ValueError, match=r"a worker's .* must be JSON-ready"):
            store.announce_worker(make_worker(**change), LEASE_S)
        with pytest.raises(ValueError, match="lease_s > 0"):
            store.announce_worker(make_worker(), 0)
        assert store.workers() == []

    def test_a_worker_that_is_heard_of_keeps_its_trials(self, store: TrialStore, clock: FakeClock) -> None:
        driven(store, "s", 4)
        driven(store, "t", 4, executor="local")
        assert take(store, "a", limit=3) == [("s", 0), ("s", 1), ("s", 2)]
        store.claim_trial("t", "a", lease_s=LEASE_S)
        store.complete_trial("s", 0, "a", [make_measurement()])
        store.release_trial("s", 1, "a")
        assert take(store, "b") == [("s", 1)]
        clock.advance(LEASE_S - 1)
        facts = make_worker("a", study="s", trials=(0, 1, 2, 3, 77))
        assert store.announce_worker(facts, LEASE_S) == {0, 1, 3, 77}
        assert store.announce_worker(replace(facts, trials=(2, 2)), LEASE_S) == frozenset()
        assert store.announce_worker(replace(facts, trials=()), LEASE_S) == frozenset()
        assert store.announce_worker(replace(facts, study="none", trials=(2,)), LEASE_S) == {2}
        clock.advance(1)
        assert store.release_expired("s") == [1], "the other worker's"
        assert store.release_expired("t") == [0], "it is not what it says it works on"
        clock.advance(LEASE_S - 1)
        assert store.release_expired("s") == [2]

    def test_workers_serve_studies_that_ask_for_them(self, store: TrialStore, clock: FakeClock) -> None:
        driven(store, "local", 1, executor="local")
        driven(store, "asking", 2)
        store.create_study(make_spec("undriven"))
        store.add_trial("undriven", make_draft())
        assert take(store) == [("asking", 0)]
        clock.advance(LEASE_S + 1)
        assert take(store) == [("asking", 1)]  # its driver is late, or gone: what it asked for is done all the same
        assert take(store) == []

    def test_a_released_study_gets_no_worker(self, store: TrialStore) -> None:
        driven(store, "s", 1)
        store.release_driver("s", "driver of s")
        assert take(store) == []

    def test_named_studies_are_served_whoever_drives_them(self, store: TrialStore) -> None:
        driven(store, "a", 1)
        driven(store, "local", 1, executor="local")
        assert take(store, studies=["local"]) == [("local", 0)]
        assert take(store, studies=["local"]) == []
        assert take(store, studies=[]) == []
        store.release_driver("a", "driver of a")
        assert take(store, studies=["a", "local"]) == [("a", 0)]

    def test_refused_studies_are_left_to_others(self, store: TrialStore) -> None:
        driven(store, "a", 1)
        driven(store, "b", 1)
        assert take(store, refuse=["a"]) == [("b", 0)]
        assert take(store, refuse=["a", "b"]) == []
        assert take(store, studies=["a"], refuse=["a"]) == []
        assert take(store) == [("a", 0)]

    def test_the_study_with_the_fewest_running_trials_is_next(self, store: TrialStore) -> None:
        for name in ("a", "b", "c"):
            driven(store, name, 6)
        served = Counter(take(store, f"w{i}", prefer=["b"])[0][0] for i in range(9))
        assert served == {"a": 3, "b": 3, "c": 3}
        store.complete_trial("c", 0, store.running_workers("c")[0], [make_measurement()])
        assert take(store, "w", prefer=["b"])[0][0] == "c"

    def test_weights_share_the_workers(self, store: TrialStore) -> None:
        driven(store, "heavy", 12, weight=3)
        driven(store, "light", 12)
        served = Counter(take(store, f"w{i}")[0][0] for i in range(12))
        assert served == {"heavy": 9, "light": 3}

    def test_among_equals_the_preferred_one_is_next_until_the_others_lose_patience(
        self, store: TrialStore, clock: FakeClock
    ) -> None:
        for name in ("a", "b"):
            driven(store, name, 9)

        def serve() -> str:
            ((name, number),) = take(store, prefer=["b"])
            clock.advance(PATIENCE_S / 4)
            store.complete_trial(name, number, "w", [make_measurement()])
            return name

        assert [serve() for _ in range(10)] == list("bbbbabbbab")

    def test_without_preference_equals_take_turns(self, store: TrialStore, clock: FakeClock) -> None:
        for name in ("a", "b", "c"):
            driven(store, name, 9)

        clock.advance(2)

        def serve() -> str:
            ((name, number),) = take(store)
            clock.advance(2)
            store.complete_trial(name, number, "w", [make_measurement()])
            return name

        assert Counter(serve() for _ in range(9)) == {"a": 3, "b": 3, "c": 3}

    def test_several_are_taken_together_if_they_can_train_together(self, store: TrialStore) -> None:
        driven(store, "s", 3)
        longer = Fidelity(train_examples=100, epochs=9)
        store.add_trial("s", make_draft(10, fidelity=longer))
        store.add_trial("s", make_draft(11, kind=TrialKind.BASELINE))
        store.add_trial("s", make_draft(12))
        store.add_trial("s", make_draft(13, fidelity=longer))
        assert take(store, limit=2) == [("s", 0), ("s", 1)]
        assert take(store, limit=9) == [("s", 2), ("s", 5)]
        assert take(store, limit=9) == [("s", 3), ("s", 6)]
        assert take(store, limit=9) == [("s", 4)]
        assert take(store, limit=9) == []
        assert set(store.running_workers("s").values()) == {"w"}
        with pytest.raises(ValueError, match="limit >= 1"):
            take(store, limit=0)

    def end_and_take(self, store: TrialStore, name: str, number: int, **choice: object) -> list[tuple[str, int]]:
        measurements = [make_measurement()]
        found = store.complete_and_claim(name, number, "w", measurements, lease_s=LEASE_S, **choice)  # type: ignore[arg-type]
        assert all(trial.state is TrialState.RUNNING and trial.worker == "w" for _, trial in found)
        return [(name, trial.number) for name, trial in found]

    def test_a_trial_ends_and_the_next_one_is_taken(self, store: TrialStore) -> None:
        """Oracle: the same two calls, one after the other, on studies of the same kind."""
        for name in ("a", "b"):
            driven(store, name, 3)
            assert take(store, studies=[name]) == [(name, 0)]
        assert self.end_and_take(store, "a", 0, studies=["a"]) == [("a", 1)]
        store.complete_trial("b", 0, "w", [make_measurement()])
        assert take(store, studies=["b"]) == [("b", 1)]
        mine, other = store.load_trial("a", 0), store.load_trial("b", 0)
        assert (mine.state, mine.measurements, mine.finished_at) == (other.state, other.measurements, other.finished_at)
        assert store.running_workers("a") == {1: "w"}
        store.heartbeat("a", 1, "w", LEASE_S)
        assert self.end_and_take(store, "a", 1, studies=["a"], kinds=[TrialKind.BASELINE]) == []
        assert take(store, studies=["a"]) == [("a", 2)]
        assert self.end_and_take(store, "a", 2, studies=["a"]) == []
        assert {item.state for item in store.load_study("a").trials} == {TrialState.COMPLETE}

    def test_the_trial_that_ends_does_not_count_when_the_next_one_is_chosen(self, store: TrialStore) -> None:
        """Fewest RUNNING first: of one trial each, the study whose trial ends has none."""
        for name in ("a", "b"):
            driven(store, name, 4)
            assert take(store, studies=[name]) == [(name, 0)]
        assert self.end_and_take(store, "b", 0) == [("b", 1)]
        assert self.end_and_take(store, "a", 0, refuse=["a"]) == [("b", 2)]
        assert self.end_and_take(store, "b", 1) == [("a", 1)]

    def test_several_are_taken_when_one_ends(self, store: TrialStore) -> None:
        driven(store, "s", 5)
        assert take(store) == [("s", 0)]
        assert self.end_and_take(store, "s", 0, limit=3) == [("s", 1), ("s", 2), ("s", 3)]

    def test_whoever_lost_its_trial_gets_no_other(self, store: TrialStore, clock: FakeClock) -> None:
        driven(store, "s", 2)
        store.claim_next("w", lease_s=LEASE_S)
        clock.advance(LEASE_S)
        assert store.release_expired("s") == [0]
        assert take(store, "other") == [("s", 0)]
        with pytest.raises(TrialConflictError, match="does not hold trial 0 of study 's', which is held by 'other'"):
            self.end_and_take(store, "s", 0)
        assert [item.state for item in store.load_study("s").trials] == [TrialState.RUNNING, TrialState.WAITING]
        assert store.load_trial("s", 0).measurements == ()
        with pytest.raises(NotFoundError):
            self.end_and_take(store, "s", 7)
        with pytest.raises(NotFoundError):
            store.complete_and_claim("s", 0, "other", [make_measurement()], lease_s=LEASE_S, studies=["none"])
        with pytest.raises(ValueError, match="at least one measurement"):
            store.complete_and_claim("s", 0, "other", [], lease_s=LEASE_S)
        assert store.running_workers("s") == {0: "other"}

    def test_kinds_are_chosen(self, store: TrialStore) -> None:
        driven(store, "a", 2)
        driven(store, "b", 1, kind=TrialKind.BASELINE)
        assert take(store, kinds=[TrialKind.BASELINE], prefer=["a"]) == [("b", 0)]
        assert take(store, kinds=[TrialKind.BASELINE]) == []
        assert take(store, kinds=[]) == []

    def test_what_is_taken_is_the_whole_trial(self, store: TrialStore, clock: FakeClock) -> None:
        driven(store, "s", 1)
        store.set_note("s", 0, "suggestion", {"source": "model"})
        early = ended(make_measurement(), TrialState.PRUNED)
        assert take(store) == [("s", 0)]
        store.complete_trial("s", 0, "w", [early], TrialState.PRUNED)
        store.continue_trial("s", 0)
        now = clock.advance(7)
        ((name, trial),) = store.claim_next("v", lease_s=LEASE_S)
        assert (name, trial.measurements, trial.curve, trial.started_at) == ("s", (early,), (), now)
        assert trial == store.load_trial("s", 0)
