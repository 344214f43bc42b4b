from __future__ import annotations

import math
import threading
import time
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from autopeft.exceptions import MachineError, StoreError
from autopeft.orchestrate import SilentProgress, _patient, _remote
from autopeft.orchestrate._patient import patient
from autopeft.orchestrate._remote import RemoteExecutor
from autopeft.store import MemoryStore, WorkerFacts
from autopeft.study import Failure, Study, Trial, TrialKind
from tests.orchestrate.test_executor import KINDS, make_store
from tests.study.builders import make_draft, make_measurement, make_spec


class Record(SilentProgress):
    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.lines: list[str] = []

    def trial_started(self, trial: Trial) -> None:
        self.events.append(("started", trial.number))

    def trial_finished(self, trial: Trial, best: Trial | None) -> None:
        self.events.append(("finished", trial.number))

    def trial_failed(self, trial: Trial) -> None:
        self.events.append(("failed", trial.number))

    def message(self, text: str) -> None:
        self.lines.append(text)


class FakePool:
    name = "mine"
    size = 2

    def __init__(self, shortage: str | None = None) -> None:
        self.shortage = shortage

    def tend(self, wanted: int) -> str | None:
        return self.shortage


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_remote, "_LONGEST_WAIT_S", 0.3)
    monkeypatch.setattr(_remote, "_EXPLAIN_AFTER_S", 0.1)
    monkeypatch.setattr(_remote, "_LOOK_AT_WORKERS_EVERY_S", 0.0)
    monkeypatch.setattr(_remote, "_RECOVER_EVERY_S", 0.0)


def announce(store: MemoryStore, n: int = 1, **resources: Any) -> None:
    for i in range(n):
        store.announce_worker(WorkerFacts(id=f"host:k:{i + 1}:0", host="host", pid=i + 1, resources=resources), 60)


def test_it_waits_for_an_end_and_tells_of_it() -> None:
    store, progress = make_store(1, 2), Record()
    executor = RemoteExecutor(store, progress)
    announce(store)
    trial = store.claim_trial("study", "host:k:1:0", lease_s=60)
    assert trial is not None
    thread = threading.Timer(0.1, lambda: store.complete_trial("study", 0, "host:k:1:0", [make_measurement(0.5)]))
    thread.start()
    assert executor.advance("study", KINDS)
    thread.join()
    assert progress.events == [("started", 0), ("finished", 0)]
    claimed = store.claim_trial("study", "host:k:1:0", lease_s=60)
    assert claimed is not None
    store.fail_trial("study", 1, "host:k:1:0", Failure(reason="crashed", message="signal 11"))
    assert not executor.advance("study", KINDS), "nothing waits or runs any more"
    assert progress.events[2:] == [("started", 1), ("failed", 1)]


def test_only_the_kinds_that_are_asked_for_count() -> None:
    store = make_store(1)
    assert not RemoteExecutor(store, SilentProgress()).advance("study", (TrialKind.CONFIRMATION,))


def test_trials_wait_for_every_worker_and_a_few_ahead() -> None:
    store = make_store(*range(1, 9))
    executor = RemoteExecutor(store, SilentProgress())
    assert executor.slots == 2, "one that may come, and one ahead"
    announce(store, 8)
    executor.advance("study", KINDS)
    assert executor.slots == 8 + 2
    for i in range(8):
        store.claim_trial("study", f"host:k:{i + 1}:0", lease_s=60)
    executor.advance("study", KINDS)
    assert executor.slots == 2, "all workers are busy"


def test_where_trials_are_short_more_wait_and_never_more_than_there_are_workers() -> None:
    """Oracle: arithmetic; as many wait ahead as ended in two seconds."""
    store = make_store(*range(1, 40))
    announce(store, 16)
    executor = RemoteExecutor(store, SilentProgress())
    executor.advance("study", KINDS)
    executor._counted = None

    def end(numbers: range) -> None:
        for number in numbers:
            assert store.claim_trial("study", "host:k:1:0", lease_s=60, numbers=[number]) is not None
            store.complete_trial("study", number, "host:k:1:0", [make_measurement(0.5)])
        executor._look("study")

    executor._count_taken(100.0)
    end(range(9))
    executor._count_taken(101.9)
    assert executor.slots == 16 + 4, "it is too soon to say"
    executor._count_taken(103.0)
    assert executor.slots == 16 + 6
    end(range(9, 39))
    executor._count_taken(105.0)
    assert executor.slots == 16 + 16
    executor._count_taken(205.0)
    assert executor.slots == 16 + 4, "nothing has ended for long"
    assert executor._lasts_s(3) == math.inf


def test_more_wait_where_it_takes_long_to_ask_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: arithmetic; as many wait ahead as end in two seconds and twice the time that asking took."""
    store = make_store(*range(1, 40))
    announce(store, 16)
    executor = RemoteExecutor(store, SilentProgress())
    now, pauses = 100.0, list[float]()

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        pauses.append(seconds)

    monkeypatch.setattr(_remote, "_LONGEST_WAIT_S", 1.0)
    monkeypatch.setattr(_remote, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    assert executor.advance("study", KINDS)
    for number in range(5):
        assert store.claim_trial("study", "host:k:1:0", lease_s=60, numbers=[number]) is not None
        store.complete_trial("study", number, "host:k:1:0", [make_measurement(0.5)])
    executor._counted = now, 0
    now += 2.5
    assert executor.advance("study", KINDS)
    assert executor.slots == 16 + 12, "no more for a sampler that takes longer than two seconds"
    executor._counted, executor._taken_per_s = (now, 5), 130.0
    pauses.clear()
    assert executor.advance("study", KINDS)
    assert max(pauses) == pytest.approx((34 - 16 // 2) / 130)


def test_a_worker_that_trains_cohorts_counts_for_as_many() -> None:
    store = make_store(1)
    announce(store, 1, cohort=16)
    executor = RemoteExecutor(store, SilentProgress())
    executor.advance("study", KINDS)
    assert executor.slots == 16 + 4


def test_as_long_as_enough_trials_wait_ends_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_remote, "_LONGEST_WAIT_S", 20.0)
    monkeypatch.setattr(_remote, "_POLL_S", (0.01, 20.0))
    store, progress = make_store(*range(1, 29)), Record()
    executor = RemoteExecutor(store, progress)
    announce(store, 16)
    assert executor.advance("study", KINDS), "there are more workers than it knew of"
    for i in range(16):
        store.claim_trial("study", f"host:k:{i + 1}:0", lease_s=60)

    def end(numbers: range) -> None:
        for number in numbers:
            store.complete_trial("study", number, f"host:k:{number + 1}:0", [make_measurement(0.5)])
            store.claim_trial("study", f"host:k:{number + 1}:0", lease_s=60)

    # Twelve wait, four of them ahead: it is time when two are left.
    threads = [threading.Timer(0.05, end, [range(4)]), threading.Timer(0.6, end, [range(4, 11)])]
    for thread in threads:
        thread.start()
    assert executor.advance("study", KINDS)
    for thread in threads:
        thread.join()
    assert sum(what == "finished" for what, _ in progress.events) > 4


def test_a_trial_of_a_dead_worker_is_put_back_and_told() -> None:
    store, progress = make_store(1), Record()
    executor = RemoteExecutor(store, progress)
    from autopeft.orchestrate._worker_id import worker_id

    store.claim_trial("study", worker_id(), lease_s=600)
    executor.advance("study", KINDS)
    store.release_trial("study", 0, worker_id())
    host, kernel, _, start = worker_id().rsplit(":", 3)
    store.claim_trial("study", f"{host}:{kernel}:4194304:{start}", lease_s=600)
    executor.advance("study", KINDS)
    assert store.load_trial("study", 0).state.value == "WAITING"
    assert any("was given back" in line for line in progress.lines)


def test_after_an_outage_workers_are_given_time_to_be_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    class Away(MemoryStore):
        n_left = 0

        def load_outline(self, name: str) -> Study:
            if self.n_left:
                self.n_left -= 1
                raise StoreError("the database cannot be reached.")
            return super().load_outline(name)

    monkeypatch.setattr(_patient, "_PAUSE_S", (0.01, 0.02))
    store = Away(clock=lambda: datetime.now(UTC))
    store.create_study(make_spec())
    store.add_trial("study", make_draft())
    assert store.claim_trial("study", "far:away:1:0", lease_s=0.01) is not None
    away = patient(store, lambda _: None)
    executor = RemoteExecutor(away, Record())
    store.n_left = 2
    away.load_outline("study")
    time.sleep(0.1)
    executor.advance("study", KINDS)
    assert store.running_workers("study") == {0: "far:away:1:0"}, "its lease is over, but it may train still"
    monkeypatch.setattr(_remote, "_HEARD_AGAIN_S", 0.0)
    executor.advance("study", KINDS)
    assert store.running_workers("study") == {}


def test_it_says_once_why_nothing_happens() -> None:
    store, progress = make_store(1), Record()
    executor = RemoteExecutor(store, progress)
    for _ in range(3):
        executor.advance("study", KINDS)
    assert len(progress.lines) == 1
    assert "none is known" in progress.lines[0]
    assert "autopeft worker" in progress.lines[0]
    refusals = {"study": "lacks backbone minilm"}
    store.announce_worker(WorkerFacts(id="host:k:1:0", host="host", pid=1, refusals=refusals), 60)
    executor.advance("study", KINDS)
    assert "all 1 refuse study study: lacks backbone minilm" in progress.lines[1]


def test_a_pool_whose_workers_all_refuse_ends_the_search() -> None:
    store = make_store(1)
    executor = RemoteExecutor(store, SilentProgress(), name="ray", pool=FakePool())
    facts = {"resources": {"pool": "mine"}, "refusals": {"study": "torch 2.9 here"}}
    store.announce_worker(WorkerFacts(id="host:k:1:0", host="host", pid=1, **facts), 60)  # type: ignore[arg-type]
    store.announce_worker(WorkerFacts(id="host:k:2:0", host="host", pid=2), 60)
    with pytest.raises(MachineError, match=r"no worker can serve study study: torch 2.9 here"):
        executor.advance("study", KINDS)


def test_a_pool_without_room_is_explained() -> None:
    store, progress = make_store(1), Record()
    executor = RemoteExecutor(store, progress, name="ray", pool=FakePool("no node has 1 GPU free."))
    executor.advance("study", KINDS)
    assert progress.lines == ["Waiting for workers: no node has 1 GPU free."]
