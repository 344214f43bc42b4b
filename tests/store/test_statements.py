"""Statements that are built once; what they do is in the contracts."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.dialects import postgresql

from autopeft.exceptions import TrialConflictError
from autopeft.store import SqlStore
from autopeft.store import _statements as statements
from autopeft.study import Rung, TrialState
from tests.store.builders import claimed, make_draft, make_measurement, make_point, make_spec
from tests.store.conftest import Cluster, execute, sent


def test_statements_are_built_once() -> None:
    assert statements.beat(True, False) is statements.beat(True, False)
    assert statements.finish(True, 2) is not statements.finish(True, 1)


def test_the_server_keeps_the_time_where_it_can() -> None:
    for server in (True, False):
        words = str(statements.finish(server, 1).compile(dialect=postgresql.dialect()))
        assert ("statement_timestamp()" in words) == server
        assert ("p_now" in words) == (not server)


@pytest.mark.postgres
def test_a_completion_is_one_statement_on_a_server(cluster: Cluster) -> None:
    execute(cluster.url(), "CREATE DATABASE completions")
    with SqlStore(cluster.url("completions")) as store:
        store.create_study(make_spec())
        claimed(store, "s")
        measurement = replace(make_measurement(), rung=Rung(step=1, n_steps=9))
        with sent() as seen:
            store.complete_trial("s", 0, "w", [measurement], TrialState.PRUNED)
        assert len(seen) == 1
        store.continue_trial("s", 0)
        store.claim_trial("s", "w", lease_s=60)
        store.add_point("s", 0, "w", make_point(1))
        with pytest.raises(ValueError, match="must differ in split, fidelity or seed, or in their rung"):
            store.complete_trial("s", 0, "w", [measurement], TrialState.PRUNED)
        assert store.load_trial("s", 0).state is TrialState.RUNNING
    execute(cluster.url(), "DROP DATABASE completions WITH (FORCE)")


@pytest.mark.postgres
def test_a_completion_and_the_next_claim_are_one_statement_on_a_server(cluster: Cluster) -> None:
    execute(cluster.url(), "CREATE DATABASE relays")
    with SqlStore(cluster.url("relays")) as store:
        store.create_study(make_spec())
        store.acquire_driver("s", "d", executor="workers", lease_s=60)
        store.add_trials("s", [make_draft(rank) for rank in range(1, 4)])
        store.claim_next("w", lease_s=60)
        with sent() as seen:
            ((_, taken),) = store.complete_and_claim("s", 0, "w", [make_measurement()], lease_s=60)
        assert len(seen) == 1
        assert taken.number == 1
        # The same result again: it would be there twice.
        store.complete_trial("s", 1, "w", [make_measurement(), make_measurement(seed=2)])
        with store._single() as connection:
            connection.execute(text("UPDATE trials SET state = 'PRUNED' WHERE number = 1"))
        store.continue_trial("s", 1)
        store.claim_trial("s", "w", lease_s=60, numbers=[1])
        with pytest.raises(ValueError, match="must differ in split, fidelity or seed"):
            store.complete_and_claim("s", 1, "w", [make_measurement()], lease_s=60)
        assert store.running_workers("s") == {1: "w"}, "nothing else was taken"
    execute(cluster.url(), "DROP DATABASE relays WITH (FORCE)")


@pytest.mark.postgres
def test_a_server_waits_for_the_disk_for_what_must_not_be_lost(cluster: Cluster) -> None:
    """Oracle: how far the server's log is on the disk, which is not beyond where it was before if nobody waits.

    It is compared with the log before the act, because the server itself writes something now and then.
    """
    execute(cluster.url(), "CREATE DATABASE durable")
    written = text("SELECT CAST(pg_current_wal_insert_lsn() AS text)")
    still_behind = text("SELECT pg_current_wal_flush_lsn() <= CAST(:before AS pg_lsn)")
    with SqlStore(cluster.url("durable")) as store:
        store.create_study(make_spec())
        store.acquire_driver("s", "d", executor="workers", lease_s=60)
        store.add_trials("s", [make_draft(rank) for rank in range(1, 41)])
        # The server writes it now and then all the same.
        behind: dict[str, list[bool]] = {"claim": [], "heartbeat": [], "point": [], "completion": [], "both": []}
        for number in range(0, 40, 2):
            given = [make_measurement()]
            for name, act in {
                "claim": lambda: store.claim_next("w", lease_s=60),
                "heartbeat": lambda number=number: store.heartbeat("s", number, "w", 60),
                "point": lambda number=number: store.add_point("s", number, "w", make_point(1)),
                "both": lambda number=number, given=given: store.complete_and_claim(
                    "s", number, "w", given, lease_s=60
                ),
                "completion": lambda number=number, given=given: store.complete_trial("s", number + 1, "w", given),
            }.items():
                with store._single() as connection:
                    before = connection.execute(written).scalar_one()
                act()
                with store._single() as connection:
                    behind[name].append(connection.execute(still_behind, {"before": before}).scalar_one())
        assert not any(behind["completion"])
        assert not any(behind["both"])
        assert all(any(behind[name]) for name in ("claim", "heartbeat", "point"))
    execute(cluster.url(), "DROP DATABASE durable WITH (FORCE)")


@pytest.mark.postgres
@pytest.mark.parametrize(
    "call", ["heartbeat", "add_point", "complete_trial", "complete_and_claim", "fail_trial", "release_trial"]
)
def test_who_waits_for_a_row_sees_what_became_of_it(cluster: Cluster, call: str) -> None:
    """The lease ends while its holder waits for the row: the holder must see that, and not what it saw before."""
    name = f"waiting_{call}"
    execute(cluster.url(), f"CREATE DATABASE {name}")
    arguments = {
        "heartbeat": (60,),
        "add_point": (make_point(1),),
        "complete_trial": ([make_measurement()],),
        "complete_and_claim": ([make_measurement()],),
        "fail_trial": (None,),
        "release_trial": (),
    }
    with SqlStore(cluster.url(name)) as store:
        store.create_study(make_spec())
        claimed(store, "s")
        errors: list[BaseException] = []

        def act() -> None:
            try:
                more = {"lease_s": 60} if call == "complete_and_claim" else {}
                getattr(store, call)("s", 0, "w", *arguments[call], **more)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=act)
        with store._engine.begin() as other:
            other.execute(text("SELECT 1 FROM trials FOR UPDATE"))
            other.execute(text("SELECT 1 FROM leases FOR UPDATE"))
            thread.start()
            while not _is_anybody_waiting(cluster, name):
                threading.Event().wait(0.02)
            other.execute(text("UPDATE leases SET ended_at = now(), outcome = 'lost'"))
            other.execute(text("UPDATE trials SET state = 'WAITING', started_at = NULL"))
        thread.join(30)
        assert [type(error) for error in errors] == [TrialConflictError]
        trial = store.load_trial("s", 0)
        assert (trial.state, trial.measurements, trial.curve) == (TrialState.WAITING, (), ())
    execute(cluster.url(), f"DROP DATABASE {name} WITH (FORCE)")


def _is_anybody_waiting(cluster: Cluster, database: str) -> bool:
    from sqlalchemy import create_engine

    engine = create_engine(cluster.url().replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        statement = text("SELECT count(*) FROM pg_stat_activity WHERE datname = :name AND wait_event_type = 'Lock'")
        found = connection.execute(statement, {"name": database}).scalar_one()
    engine.dispose()
    return int(found) > 0


@pytest.mark.postgres
def test_a_completion_looks_at_its_own_lease_however_many_are_held(cluster: Cluster) -> None:
    """Oracle: the index entries that the server says it has read, after statistics that know ended leases alone."""
    execute(cluster.url(), "CREATE DATABASE many_held")
    n, read = 300, "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'uq_leases_held'"
    with SqlStore(cluster.url("many_held")) as store:
        store.create_study(make_spec())
        store.add_trials("s", [make_draft(rank) for rank in range(1, n + 1)])
        ended = (
            "INSERT INTO leases (trial_id, worker, claimed_at, heartbeat_at, expires_at, ended_at, outcome) "
            "SELECT t.id, 'w', now(), now(), now(), now(), 'lost' FROM trials t, generate_series(1, 100)"
        )
        execute(cluster.url("many_held"), ended, "VACUUM ANALYZE")
        while store.claim_trial("s", "w", lease_s=60) is not None:
            pass

        def n_read() -> int:
            with store._single() as connection:
                connection.execute(text("SELECT pg_stat_force_next_flush()"))
                return int(connection.execute(text(read)).scalar_one())

        before = n_read()
        for number in range(20):
            store.complete_trial("s", number, "w", [make_measurement()])
        assert n_read() - before < 20 * n / 10
    execute(cluster.url(), "DROP DATABASE many_held WITH (FORCE)")
