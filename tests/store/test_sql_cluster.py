"""Drivers and workers in a database, beyond the contract."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import event

from autopeft.store import SqlStore, WorkerFacts
from tests.store.builders import FakeClock, make_draft, make_spec


def test_workers_that_were_not_heard_of_for_a_day_are_forgotten(tmp_path: Path) -> None:
    clock = FakeClock()
    with SqlStore(tmp_path / "a.db", clock=clock) as store:
        for name in ("old", "new"):
            store.announce_worker(WorkerFacts(id=name, host="h", pid=1), 60)
            assert [record.facts.id for record in store.workers()][-1] == name
            clock.advance(86_000)
        store.announce_worker(WorkerFacts(id="newest", host="h", pid=1), 60)
        assert [record.facts.id for record in store.workers()] == ["new", "newest"]


def test_an_idle_worker_locks_nothing(tmp_path: Path) -> None:
    """Thousands of idle workers ask again and again: they must not stand in the way of those that write."""
    with SqlStore(tmp_path / "a.db") as store:
        store.create_study(make_spec())
        store.acquire_driver("s", "d", executor="workers", lease_s=60)
        begun: list[bool] = []

        @event.listens_for(store._engine, "begin")
        def note(connection: object) -> None:
            begun.append(connection.get_execution_options().get("writes", False))  # type: ignore[attr-defined]

        assert store.claim_next("w", lease_s=60) == []
        assert begun == [False]
        store.add_trial("s", make_draft())
        assert len(store.claim_next("w", lease_s=60)) == 1
