"""Workers and drivers as they are read, on SQLite and PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from autopeft.exceptions import NotFoundError
from autopeft.store import SqlStore, StudyReader, WorkerFacts, WorkerState
from autopeft.store._cluster_rows import worker_values

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.fixture
def url(any_url: str) -> str:
    return any_url


@pytest.fixture
def store(filled: SqlStore) -> SqlStore:
    return filled


def test_workers_and_drivers_are_those_of_the_store(store: SqlStore, url: str) -> None:
    """Oracle: the store, apart from the moment of reading; a worker that is gone is still there."""
    worker = WorkerFacts(
        id="h:k:1:1",
        host="h",
        pid=1,
        resources={"cpus": 2},
        versions={"torch": "2.0"},
        state=WorkerState.WORKING,
        study="other",
        trials=(3, 4),
        refusals={"s": "lacks 'böse'\x00"},
    )
    with StudyReader(url) as reader:
        assert reader.workers() == []
        assert reader.driver("s") is None
        store.announce_worker(worker, lease_s=60)
        store.announce_worker(replace(worker, id="h:k:2:2", pid=2), lease_s=60)
        store.acquire_driver("s", "me", executor="workers", lease_s=60, weight=2.0)
        found, known = reader.workers(), store.workers()
        assert [item.facts for item in found] == [worker, replace(worker, id="h:k:2:2", pid=2)]
        assert [replace(item, read_at=EPOCH) for item in found] == [replace(item, read_at=EPOCH) for item in known]
        driver = reader.driver("s")
        assert driver is not None
        assert replace(driver, read_at=EPOCH) == replace(store.driver("s"), read_at=EPOCH)
        assert reader.driver("other") is None
        # The fixture's clock stands still, and the reader's does not.
        assert all(abs(datetime.now(UTC) - item.read_at) < timedelta(minutes=1) for item in (driver, *found))
        with pytest.raises(NotFoundError):
            reader.driver("none")


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(ValueError, match="a worker's resources"):
        worker_values(WorkerFacts(id="w", host="h", pid=1, resources={"cpus": object()}))
