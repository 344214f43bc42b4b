"""Statements that take trials; what they take is in the contracts."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import event, text

from autopeft.store import SqlStore
from autopeft.store._claims import SERVED_GRAIN_S
from tests.store.builders import FakeClock, make_draft, make_measurement, make_spec
from tests.store.conftest import Cluster, execute, sent


def test_a_drivers_row_is_written_once_a_second_however_many_claims_there_are(tmp_path: Path) -> None:
    clock = FakeClock()
    with SqlStore(tmp_path / "a.db", clock=clock) as store:
        store.create_study(make_spec())
        store.add_trials("s", [make_draft(rank) for rank in range(1, 21)])
        store.acquire_driver("s", "d", executor="workers", lease_s=60)
        written: list[str] = []
        event.listen(store._engine, "before_cursor_execute", lambda *args: written.append(args[2]))
        for _ in range(20):
            assert store.claim_next("w", lease_s=60)
            clock.advance(SERVED_GRAIN_S / 10)
        assert sum("UPDATE drivers" in statement for statement in written) == 2


@pytest.mark.postgres
def test_a_claim_is_one_statement_on_a_server(cluster: Cluster) -> None:
    """Whose turn it is, and taking the trial: every other one would be a journey more."""
    execute(cluster.url(), "CREATE DATABASE claims")
    with SqlStore(cluster.url("claims")) as store:
        store.create_study(make_spec())
        store.add_trials("s", [make_draft(rank) for rank in range(1, 5)])
        store.acquire_driver("s", "d", executor="workers", lease_s=60)
        with sent() as seen:
            for _ in range(3):
                seen.clear()
                assert store.claim_next("w", lease_s=60)
                assert len(seen) == 1
            seen.clear()
            store.heartbeat("s", 0, "w", 60)
            assert len(seen) == 1
    execute(cluster.url(), "DROP DATABASE claims WITH (FORCE)")


@pytest.mark.postgres
def test_nobody_waits_for_the_row_of_a_driver(cluster: Cluster) -> None:
    """A driver that is paused while it writes its own row holds up neither claims nor results."""
    execute(cluster.url(), "CREATE DATABASE seats", "ALTER DATABASE seats SET lock_timeout = '2s'")
    with SqlStore(cluster.url("seats")) as store:
        store.create_study(make_spec())
        store.add_trials("s", [make_draft(rank) for rank in range(1, 5)])
        store.acquire_driver("s", "d", executor="workers", lease_s=60)
        with store._engine.begin() as other:
            other.execute(text("SELECT 1 FROM drivers FOR UPDATE"))
            assert [trial.number for _, trial in store.claim_next("w", lease_s=60)] == [0]
            found = store.complete_and_claim("s", 0, "w", [make_measurement()], lease_s=60)
            assert [trial.number for _, trial in found] == [1]
        found = store.complete_and_claim("s", 1, "w", [make_measurement()], lease_s=60)
        assert [trial.number for _, trial in found] == [2]
        with store._single() as connection:
            assert connection.execute(text("SELECT served_at IS NOT NULL FROM drivers")).scalar_one()
    execute(cluster.url(), "DROP DATABASE seats WITH (FORCE)")
