"""The queue in the database: who may change what, and that nothing is started twice."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from autopeft.exceptions import NotFoundError, SubmissionConflictError
from autopeft.store import Submissions, SubmissionState
from tests.store.conftest import Cluster, execute


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def queue(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Submissions]:
    if request.param == "sqlite":
        with Submissions(tmp_path / "a.db", clock=clock) as made:
            yield made
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    execute(cluster.url(), "CREATE DATABASE submissions")
    with Submissions(cluster.url("submissions"), clock=clock) as made:
        yield made
    execute(cluster.url(), "DROP DATABASE submissions WITH (FORCE)")


def test_a_submission_is_stored_as_given(queue: Submissions) -> None:
    made = queue.submit("s", "ada", {"task": "stdlib/topics", "trials": 4})
    assert made == queue.load("s")
    assert (made.owner, made.state, made.attempts) == ("ada", SubmissionState.QUEUED, 0)
    assert made.settings == {"task": "stdlib/topics", "trials": 4}
    assert made.started_at is made.finished_at is made.process is made.service is made.message is None
    assert queue.counts() == {**dict.fromkeys(SubmissionState, 0), SubmissionState.QUEUED: 1}


def test_names_are_data_whatever_is_in_them(queue: Submissions) -> None:
    name = "'); DROP TABLE submissions; --<script>\x00"
    queue.submit(name, "ada", {"x": name})
    assert queue.load(name).settings == {"x": name}
    assert queue.queue() == [name]


def test_what_was_not_submitted_is_not_found(queue: Submissions) -> None:
    for call in (queue.load, queue.request_stop):
        with pytest.raises(NotFoundError, match="'nothing'"):
            call("nothing")


def test_turns_alternate_between_owners_and_history_counts(queue: Submissions) -> None:
    for study, owner in [("a1", "ada"), ("a2", "ada"), ("a3", "ada"), ("b1", "bob")]:
        queue.submit(study, owner, {})
    assert queue.queue() == ["a1", "b1", "a2", "a3"]
    started = [queue.start_next("svc") for _ in range(5)]
    assert [item.study if item else None for item in started] == ["a1", "b1", "a2", "a3", None]
    assert all(item.state is SubmissionState.RUNNING and item.service == "svc" for item in started if item)
    for study in ("a1", "a2", "a3", "b1"):
        queue.finish(study, "svc", SubmissionState.COMPLETE)
    queue.submit("a4", "ada", {})
    queue.submit("b2", "bob", {})
    # Bob was served longer ago than Ada.
    assert queue.queue() == ["b2", "a4"]


def test_the_same_again_changes_nothing_while_it_runs_and_queues_it_when_it_has_ended(queue: Submissions) -> None:
    queue.submit("s", "ada", {"trials": 4})
    queue.submit("s", "ada", {"trials": 5})
    queue.start_next("svc")
    assert queue.submit("s", "ada", {"trials": 5}).state is SubmissionState.RUNNING
    with pytest.raises(SubmissionConflictError, match="RUNNING"):
        queue.submit("s", "ada", {"trials": 6})
    queue.finish("s", "svc", SubmissionState.FAILED, "no disk")
    assert queue.load("s").message == "no disk"
    again = queue.submit("s", "ada", {"trials": 6})
    assert (again.state, again.message, again.finished_at) == (SubmissionState.QUEUED, None, None)
    assert again.settings == {"trials": 6}


def test_a_study_is_one_owners_and_the_queue_has_an_end(queue: Submissions) -> None:
    queue.submit("s", "ada", {}, max_queued=1)
    with pytest.raises(SubmissionConflictError, match="submitted by ada"):
        queue.submit("s", "bob", {})
    with pytest.raises(SubmissionConflictError, match="1 searches of ada wait"):
        queue.submit("t", "ada", {}, max_queued=1)
    queue.submit("t", "bob", {}, max_queued=1)


def test_stopping(queue: Submissions) -> None:
    queue.submit("waits", "ada", {})
    assert queue.request_stop("waits").state is SubmissionState.STOPPED
    queue.submit("runs", "ada", {})
    queue.start_next("svc")
    assert queue.request_stop("runs").state is SubmissionState.STOPPING
    assert queue.request_stop("runs").state is SubmissionState.STOPPING
    with pytest.raises(SubmissionConflictError, match="STOPPING"):
        queue.submit("runs", "ada", {})
    queue.finish("runs", "svc", SubmissionState.STOPPED)
    assert queue.request_stop("runs").state is SubmissionState.STOPPED
    with pytest.raises(ValueError, match="RUNNING"):
        queue.finish("runs", "svc", SubmissionState.RUNNING)


def test_only_the_service_that_holds_a_search_says_how_it_ended(queue: Submissions) -> None:
    queue.submit("s", "ada", {})
    queue.start_next("svc")
    queue.finish("s", "other", SubmissionState.FAILED)
    queue.put_back("s", "other", counts=True)
    queue.set_process("s", "other", "p:1:2")
    held = queue.load("s")
    assert (held.state, held.attempts, held.process) == (SubmissionState.RUNNING, 0, None)
    queue.put_back("s", "svc", counts=True, message="gone")
    held = queue.load("s")
    assert (held.state, held.attempts, held.message) == (SubmissionState.QUEUED, 1, "gone")


def test_what_a_silent_or_dead_service_held_is_taken_over_once(queue: Submissions, clock: Clock) -> None:
    for study, service in [("alive", "svc1"), ("dead", "svc2"), ("silent", "svc3")]:
        queue.submit(study, "ada", {})
        queue.start_next(service)
    queue.set_process("dead", "svc2", "host:k:1:2")
    clock.now += timedelta(seconds=100)
    queue.keep("svc1")
    queue.keep("svc2")
    taken = queue.take_over("new", silent_s=60, dead_services=["svc2"])
    assert [item.study for item in taken] == ["dead", "silent"]
    assert taken[0].process == "host:k:1:2"
    assert queue.take_over("newer", silent_s=60) == []
    assert queue.load("alive").service == "svc1"


def test_sixteen_at_once_start_each_search_once(queue: Submissions) -> None:
    for i in range(24):
        queue.submit(f"s{i}", f"owner{i % 3}", {})

    def work(number: int) -> list[str]:
        found = []
        while True:
            item = queue.start_next(f"svc{number}")
            # PostgreSQL's readers do not wait: what another one took first is no longer there.
            if item is None:
                return found
            found.append(item.study)

    with ThreadPoolExecutor(16) as pool:
        found = [study for studies in pool.map(work, range(16)) for study in studies]
    assert sorted(found) == sorted(f"s{i}" for i in range(24))


def test_submitted_at_once_no_more_wait_than_may(queue: Submissions) -> None:
    def submit(number: int) -> bool:
        try:
            queue.submit(f"s{number}", "ada", {}, max_queued=3)
        except SubmissionConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        accepted = list(pool.map(submit, range(24)))
    assert sum(accepted) == 3
    assert len(queue.queue()) == 3


def test_pages_of_the_list_are_the_list(queue: Submissions) -> None:
    for i in range(7):
        queue.submit(f"s{i}", "ada" if i % 2 else "bob", {})
    everything = [item.study for item in queue.find()]
    assert everything == [f"s{i}" for i in reversed(range(7))]
    assert [item.study for page in range(0, 7, 3) for item in queue.find(limit=3, offset=page)] == everything
    assert [item.study for item in queue.find(owner="ada")] == ["s5", "s3", "s1"]
    assert queue.find(states=[SubmissionState.RUNNING]) == []
