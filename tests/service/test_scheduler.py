"""The scheduler, one round at a time, with drivers that do what the test says."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autopeft.exceptions import MachineError, NotFoundError, StoreError
from autopeft.orchestrate import worker_id
from autopeft.service._scheduler import SILENT_S, Scheduler
from autopeft.store import Submission, Submissions, SubmissionState
from tests.service.conftest import FakeDrivers

Make = Callable[..., Scheduler]


class Seconds:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        # A clock that stands still would never let a grace period end.
        self.now += 0.001
        return self.now


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Submissions]:
    with Submissions(tmp_path / "a.db") as made:
        yield made


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def make(queue: Submissions, drivers: FakeDrivers, seconds: Seconds) -> Make:
    def build(service: str = "h:k:1:1", max_active: int = 2) -> Scheduler:
        return Scheduler(
            queue,
            drivers,
            service=service,
            max_active=max_active,
            resolve=lambda item: {**item.settings, "resolved": True},
            grace_s=0.02,  # of its own clock, which moves by a thousandth per look
            clock=seconds,
        )

    return build


def states(queue: Submissions) -> dict[str, str]:
    return {item.study: item.state.value for item in queue.find()}


def process_of(queue: Submissions, study: str) -> str:
    process = queue.load(study).process
    assert process is not None
    return process


def test_so_many_are_driven_and_the_next_when_one_ends(queue: Submissions, drivers: FakeDrivers, make: Make) -> None:
    for i in range(3):
        queue.submit(f"s{i}", "ada", {"task": "t"})
    scheduler = make()
    scheduler.tick()
    scheduler.tick()
    assert [study for study, _ in drivers.started] == ["s0", "s1"]
    assert drivers.started[0][1] == {"task": "t", "resolved": True}
    drivers.codes[process_of(queue, "s0")] = 0
    scheduler.tick()
    assert states(queue) == {"s0": "COMPLETE", "s1": "RUNNING", "s2": "RUNNING"}


def test_owners_take_turns(queue: Submissions, drivers: FakeDrivers, make: Make) -> None:
    for study, owner in [("a0", "ada"), ("a1", "ada"), ("a2", "ada"), ("b0", "bob")]:
        queue.submit(study, owner, {})
    make().tick()
    assert [study for study, _ in drivers.started] == ["a0", "b0"]


@pytest.mark.parametrize(
    ("code", "error", "state", "message"),
    [
        (0, "error of before", "COMPLETE", None),
        (130, None, "STOPPED", None),
        (2, "no task", "FAILED", "no task"),
        (3, None, "FAILED", "its driver ended with code 3."),
        (1, "internal error", "FAILED", "internal error"),
    ],
)
def test_how_a_driver_ends_is_how_the_search_ends(
    queue: Submissions,
    drivers: FakeDrivers,
    make: Make,
    code: int,
    error: str | None,
    state: str,
    message: str | None,
) -> None:
    queue.submit("s", "ada", {})
    scheduler = make()
    scheduler.tick()
    drivers.codes[process_of(queue, "s")] = code
    if error:
        drivers.errors["s"] = error
    scheduler.tick()
    found = queue.load("s")
    assert (found.state.value, found.message) == (state, message)


@pytest.mark.parametrize("code", [-9, -1, 4])
def test_what_the_machine_ended_is_tried_three_times(
    queue: Submissions, drivers: FakeDrivers, make: Make, code: int
) -> None:
    queue.submit("s", "ada", {})
    scheduler = make()
    for _ in range(6):
        scheduler.tick()
        process = queue.load("s").process
        if process is not None:
            drivers.codes[process] = code
    assert len(drivers.started) == 3
    found = queue.load("s")
    assert found.state is SubmissionState.FAILED
    assert "given up after 3 attempts" in (found.message or "")


def test_stopping_asks_once_and_kills_after_the_grace_period(
    queue: Submissions, drivers: FakeDrivers, make: Make, seconds: Seconds
) -> None:
    queue.submit("s", "ada", {})
    scheduler = make()
    scheduler.tick()
    process = process_of(queue, "s")
    queue.request_stop("s")
    for _ in range(3):
        scheduler.tick()
    assert drivers.stopped == [(process, True)]
    seconds.now += 6
    scheduler.tick()
    assert drivers.stopped[-1] == (process, False)
    drivers.codes[process] = -9
    scheduler.tick()
    assert states(queue) == {"s": "STOPPED"}


def test_what_cannot_be_started_fails_with_the_reason(queue: Submissions, drivers: FakeDrivers) -> None:
    def resolve(_: Submission) -> dict[str, str]:
        raise NotFoundError("you have no upload x")

    queue.submit("s", "ada", {})
    scheduler = Scheduler(queue, drivers, service="h:k:1:1", max_active=1, resolve=resolve)
    scheduler.tick()
    assert queue.load("s").message == "you have no upload x"

    def start(*_: object) -> str:
        raise MachineError("no memory")

    drivers.start = start  # type: ignore[method-assign]
    queue.submit("t", "ada", {})
    Scheduler(queue, drivers, service="h:k:1:1", max_active=1, resolve=lambda _: {}).tick()
    assert queue.load("t").message == "no memory"


def test_a_driver_whose_name_is_not_stored_is_ended(
    queue: Submissions, drivers: FakeDrivers, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StoreError("the database is away")

    queue.submit("s", "ada", {})
    with monkeypatch.context() as patch:
        patch.setattr(queue, "set_process", away)
        with pytest.raises(StoreError):
            make().tick()
    assert drivers.stopped == [("host:k:1:s", False)]
    make().tick()
    assert len(drivers.started) == 2
    assert process_of(queue, "s") == "host:k:2:s"


def dead_service() -> str:
    code = "from autopeft.orchestrate import worker_id; print(worker_id())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_a_killed_services_drivers_are_found_again_and_what_it_did_not_start_waits(
    queue: Submissions, drivers: FakeDrivers, make: Make
) -> None:
    gone = dead_service()
    for study in ("running", "ended", "stopping", "waiting"):
        queue.submit(study, "ada", {})
    make(gone, max_active=3).tick()
    queue.request_stop("stopping")
    queue.submit("taken", "bob", {})
    taken = queue.start_next(gone)
    assert taken is not None
    assert taken.study == "taken"
    drivers.codes[process_of(queue, "ended")] = -1
    n_before = len(drivers.started)

    scheduler = make(worker_id(), max_active=2)
    scheduler.tick()
    assert states(queue) == {
        "running": "RUNNING",
        "stopping": "STOPPING",
        "ended": "QUEUED",
        "taken": "QUEUED",
        "waiting": "QUEUED",
    }
    assert queue.load("running").service == worker_id()
    # Two drivers are alive, so nothing new was started.
    assert len(drivers.started) == n_before
    assert queue.load("ended").attempts == 1
    assert queue.load("taken").attempts == 0


def test_a_service_that_is_alive_keeps_what_it_has(queue: Submissions, make: Make) -> None:
    queue.submit("s", "ada", {})
    make(worker_id()).tick()
    make("other:k:1:1").tick()
    assert queue.load("s").service == worker_id()
    assert SILENT_S > 30


def test_an_ending_service_stops_its_drivers_and_leaves_their_searches_in_the_queue(
    queue: Submissions, drivers: FakeDrivers, make: Make
) -> None:
    for study in ("listens", "deaf", "stopping", "done"):
        queue.submit(study, "ada", {})
    scheduler = make(max_active=4)
    scheduler.tick()
    queue.request_stop("stopping")
    for study, code in [("listens", 130), ("stopping", 130), ("done", 0)]:
        drivers.codes[process_of(queue, study)] = code
    deaf = process_of(queue, "deaf")
    scheduler.close()
    assert states(queue) == {"listens": "QUEUED", "deaf": "QUEUED", "stopping": "STOPPED", "done": "COMPLETE"}
    assert drivers.stopped[-1] == (deaf, False)
    assert [item for item in drivers.stopped if not item[1]] == [(deaf, False)]


def test_the_loop_lives_through_a_lost_database_and_says_so_once(
    queue: Submissions, make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = make()
    fine = scheduler.tick
    broken = [True]

    def tick() -> None:
        if broken[0]:
            raise StoreError("gone")
        fine()

    monkeypatch.setattr(scheduler, "tick", tick)

    def wait_until(is_alive: bool) -> None:
        for _ in range(200):
            scheduler.wake()
            time.sleep(0.05)
            if scheduler.is_alive is is_alive:
                return
        raise AssertionError(f"is_alive does not become {is_alive}")

    with caplog.at_level(logging.WARNING):
        scheduler.start()
        wait_until(is_alive=False)
        for _ in range(5):
            scheduler.wake()
            time.sleep(0.02)
        broken[0] = False
        wait_until(is_alive=True)
    scheduler.close()
    assert [record.getMessage() for record in caplog.records] == ["the scheduler waits: gone"]
    assert not scheduler.is_alive
