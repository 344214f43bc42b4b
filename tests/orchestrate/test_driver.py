"""The right to drive a study."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from autopeft.exceptions import DriverConflictError, NotFoundError, StoreError
from autopeft.orchestrate import SilentProgress
from autopeft.orchestrate._driver import DriverSeat, describe_holder, process_of
from autopeft.orchestrate._patient import patient
from autopeft.orchestrate._worker_id import worker_id
from autopeft.store import MemoryStore, TrialStore, open_store
from autopeft.study import Trial
from tests.study.builders import make_draft, make_measurement, make_spec

DRIVE = """
import sys, time
from autopeft.orchestrate import SilentProgress
from autopeft.orchestrate._driver import DriverSeat
from autopeft.store import open_store
seat = DriverSeat(open_store(sys.argv[1]), "study", executor="workers", progress=SilentProgress(), lease_s=3600)
print(seat.take().holder, flush=True)
time.sleep(600)
"""


class Said(SilentProgress):
    def __init__(self) -> None:
        self.messages: list[str] = []
        self.finished: list[int] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def trial_finished(self, trial: Trial, best: Trial | None) -> None:
        self.finished.append(trial.number)


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    store.create_study(make_spec())
    return store


def make_seat(store: TrialStore, said: Said | None = None, lease_s: float = 60.0) -> DriverSeat:
    return DriverSeat(store, "study", executor="local", progress=said or Said(), lease_s=lease_s)


def test_a_seat_is_taken_and_released(store: MemoryStore) -> None:
    first, second = make_seat(store), make_seat(store)
    assert first.take().holder == first.holder != second.holder
    assert second.take().holder == first.holder
    assert (first.is_held, second.is_held) == (True, False)
    second.release()
    first.release()
    assert store.driver("study") is None
    assert second.take().holder == second.holder
    second.release()


def test_a_thread_keeps_the_lease(store: MemoryStore) -> None:
    seat, other = make_seat(store, lease_s=0.4), make_seat(store)
    since = seat.take().acquired_at
    time.sleep(1.0)
    lease = other.take()
    assert (lease.holder, lease.acquired_at) == (seat.holder, since)
    seat.check()
    seat.release()
    assert "autopeft-driver" not in {item.name for item in threading.enumerate()}


def test_who_waits_says_who_drives_tells_what_happens_and_takes_over(store: MemoryStore) -> None:
    said = Said()
    first, second = make_seat(store), make_seat(store, said)
    first.take()
    waiting = threading.Thread(target=second.wait)
    waiting.start()
    while not said.messages:
        time.sleep(0.01)
    store.add_trial("study", make_draft())
    store.claim_trial("study", "w", lease_s=60)
    store.complete_trial("study", 0, "w", [make_measurement(0.5)])
    while not said.finished:
        time.sleep(0.01)
    assert not second.is_held
    first.release()
    waiting.join(30)
    assert second.is_held
    assert said.finished == [0]
    told, taken = said.messages
    pid = worker_id().rsplit(":", 2)[1]
    assert re.match(rf"Study study is driven by process {pid} on \S+ since [\d-]+ [\d:]+ \(0 s ago\)", told)
    assert "takes over when that one ends or is not heard of for 60 s" in told
    assert taken == "Driving study study from here on."
    second.release()


def test_a_lease_that_another_one_took_is_lost(store: MemoryStore) -> None:
    seat = make_seat(store, lease_s=0.2)
    seat.take()
    store.release_driver("study", seat.holder)
    thief = make_seat(store)
    thief.take()
    deadline = time.monotonic() + 30
    while seat.is_held and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(DriverConflictError, match=r"does not drive study 'study' any more; '.*' does"):
        seat.check()
    thief.release()
    assert seat.take().holder == seat.holder
    seat.check()
    seat.release()


def test_a_store_that_is_away_for_a_while_ends_nothing(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    seat = make_seat(store, lease_s=0.2)
    seat.take()
    failed = threading.Event()
    keep = store.keep_driver

    def broken(*_: object) -> None:
        failed.set()
        raise StoreError("away")

    monkeypatch.setattr(store, "keep_driver", broken)
    assert failed.wait(30)
    monkeypatch.setattr(store, "keep_driver", keep)
    time.sleep(0.2)
    seat.check()
    assert make_seat(store).take().holder == seat.holder
    monkeypatch.setattr(store, "release_driver", broken)
    seat.release()  # the lease ends by itself


def test_a_dead_driver_of_this_machine_is_recognised_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with (
        open_store(url) as store,
        subprocess.Popen([sys.executable, "-c", DRIVE, url], stdout=subprocess.PIPE, text=True) as driver,
    ):
        store.create_study(make_spec())
        assert driver.stdout is not None
        holder = driver.stdout.readline().strip()
        seat = make_seat(store)
        assert seat.take().holder == holder
        driver.kill()
        driver.wait()
        assert seat.take().holder == seat.holder
        seat.release()


def test_a_study_that_is_not_there_cannot_be_driven(store: MemoryStore) -> None:
    seat = DriverSeat(store, "x", executor="local", progress=SilentProgress())
    with pytest.raises(NotFoundError, match="no study named 'x'"):
        seat.wait()


def test_holders_are_named_in_words() -> None:
    assert process_of("host:abc:12:34#5") == "host:abc:12:34"
    assert describe_holder("host:abc:12:34#5") == "process 12 on host"
    assert describe_holder("somebody") == "'somebody'"


def test_a_seat_is_left_at_once_while_the_store_is_away(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    seat = make_seat(patient(store, told.append), lease_s=0.4)
    seat.take()
    tried = threading.Event()

    def away(*_: object) -> None:
        tried.set()
        raise StoreError("the database cannot be reached.")

    monkeypatch.setattr(store, "keep_driver", away)
    monkeypatch.setattr(store, "release_driver", away)
    assert tried.wait(30)
    began = time.monotonic()
    seat.release()
    assert time.monotonic() - began < 10
    # Waiting for the store is the search's own to tell of.
    assert told == []
