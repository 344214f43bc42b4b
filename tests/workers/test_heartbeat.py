from __future__ import annotations

import logging
import time
from collections.abc import Callable

import pytest

from autopeft.exceptions import StoreError
from autopeft.store import MemoryStore, WorkerFacts, WorkerState
from tests.orchestrate.test_executor import make_store
from workers.heartbeat import Heartbeat

FACTS = WorkerFacts(id="host:k:1:0", host="host", pid=1)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def lease_end(store: MemoryStore) -> object:
    return store.workers()[0].expires_at


def test_a_worker_is_known_while_it_lives_and_its_trial_stays_its_own() -> None:
    store = make_store(1)
    beat = Heartbeat(store, FACTS, 0.4)
    beat.start()
    first = lease_end(store)
    assert store.claim_trial("study", FACTS.id, lease_s=0.4) is not None
    beat.hold("study", [0])
    until(lambda: store.workers()[0].facts.trials == (0,))
    time.sleep(1.0)
    assert store.release_expired("study") == [], "the lease was kept alive for more than its length"
    assert lease_end(store) != first
    assert beat.lost == frozenset()
    beat.drop()
    until(lambda: store.workers()[0].facts.state is WorkerState.IDLE)
    beat.stop()
    assert store.workers() == []


def test_a_trial_that_another_worker_has_is_lost() -> None:
    store = make_store(1)
    beat = Heartbeat(store, FACTS, 0.4)
    beat.start()
    store.claim_trial("study", FACTS.id, lease_s=60)
    store.release_trial("study", 0, FACTS.id)
    store.claim_trial("study", "other:k:2:0", lease_s=60)
    beat.hold("study", [0])
    until(lambda: beat.lost == {0})
    beat.drop()
    beat.hold("study", [5])
    assert 0 not in beat.lost
    beat.stop()


def test_what_was_lost_before_is_not_lost_when_it_is_held_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is of the time before: meanwhile the trial was given back, and claimed once more."""
    store = make_store(1)
    beat = Heartbeat(store, FACTS, 0.4)
    beat.hold("study", [0])
    real = store.announce_worker

    def late(facts: WorkerFacts, lease_s: float) -> frozenset[int]:
        found = real(facts, lease_s)
        store.claim_trial("study", FACTS.id, lease_s=60)
        beat.drop()
        beat.hold("study", [0])
        return found

    monkeypatch.setattr(store, "announce_worker", late)
    beat._beat()
    assert beat.lost == frozenset()
    monkeypatch.setattr(store, "announce_worker", real)
    beat._beat()
    assert beat.lost == frozenset()
    store.release_trial("study", 0, FACTS.id)
    beat._beat()
    assert beat.lost == {0}


def test_a_store_that_cannot_be_reached_is_told_once_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(1)
    beat = Heartbeat(store, FACTS, 0.1)
    beat.start()
    real, n_calls = store.announce_worker, [0]

    def fail(*_: object) -> None:
        n_calls[0] += 1
        raise StoreError("the database cannot be reached")

    with caplog.at_level(logging.WARNING, "autopeft.worker"):
        monkeypatch.setattr(store, "announce_worker", fail)
        until(lambda: n_calls[0] >= 3)
        monkeypatch.setattr(store, "announce_worker", real)
        before = lease_end(store)
        until(lambda: lease_end(store) != before)
        beat.stop()
    assert sum("cannot be reached" in item.message for item in caplog.records) == 1
    assert sum("there again" in item.message for item in caplog.records) == 1


def test_what_changes_often_is_said_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of a few hundredths of a second: the last thing that is said is what the worker does."""
    store = make_store(1)
    beat = Heartbeat(store, FACTS, 4.0)
    said: list[WorkerFacts] = []
    real = store.announce_worker
    monkeypatch.setattr(store, "announce_worker", lambda facts, lease_s: (said.append(facts), real(facts, lease_s))[1])
    beat.start()
    began = time.monotonic()
    for number in range(40):
        beat.hold("study", [number])
        time.sleep(0.02)
        beat.drop()
    until(lambda: said[-1].state is WorkerState.IDLE and store.workers()[0].facts.state is WorkerState.IDLE)
    assert len(said) <= 3 + (time.monotonic() - began) / (4.0 / 4)
    beat.stop()
