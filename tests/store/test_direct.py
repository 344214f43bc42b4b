"""Statements that the driver runs itself: the oracle is SQLAlchemy, which runs the same ones."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import Text, bindparam, insert, literal, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError, OperationalError

from autopeft.exceptions import StoreError
from autopeft.store import SqlStore
from autopeft.store._direct import Direct
from autopeft.store._models import StudyRow, TrialRow
from tests.store.builders import claimed, make_spec
from tests.store.conftest import Cluster, execute

DIALECT = postgresql.psycopg.dialect()  # type: ignore[no-untyped-call]
NAMED = select(
    StudyRow.id,
    StudyRow.name,
    StudyRow.created_at,
    literal("it's 5 %").label("said"),
    literal("%(p_name)s").label("odd"),
).where(StudyRow.name == bindparam("p_name", type_=StudyRow.name.type), StudyRow.id > 0)
WEIRD = "a\x00b\udcff"


def test_constants_are_part_of_the_text_and_parameters_are_not() -> None:
    words = Direct(NAMED, DIALECT).sql
    assert "'it''s 5 %'" in words
    assert "> 0" in words
    assert "'%(p_name)s'" in words
    assert words.count("$") == 1
    assert "name = $1" in words


def test_a_parameter_that_stands_in_two_places_is_one() -> None:
    twice = NAMED.where(StudyRow.spec != bindparam("p_spec"), StudyRow.spec != bindparam("p_name", type_=Text()))
    words = Direct(twice, DIALECT).sql
    assert (words.count("$1"), words.count("$2"), words.count("$3")) == (2, 1, 0)


def test_parameters_of_unknown_number_are_refused() -> None:
    statement = select(TrialRow.id).where(TrialRow.number.in_(bindparam("p_numbers", expanding=True)))
    with pytest.raises(ValueError, match="of known number"):
        Direct(statement, DIALECT)


@pytest.mark.postgres
def test_rows_are_those_that_sqlalchemy_reads(cluster: Cluster) -> None:
    """Text that the database refuses as it is, and moments, which the server tells in its own time zone."""
    execute(cluster.url(), "CREATE DATABASE direct", "ALTER DATABASE direct SET timezone TO 'Asia/Kathmandu'")
    moment = datetime(2026, 5, 4, 3, 2, 1, 7, tzinfo=timezone(timedelta(hours=-3)))
    with SqlStore(cluster.url("direct")) as store:
        values: dict[str, Any] = {"name": WEIRD, "spec": "{}", "created_at": moment}
        written = insert(StudyRow).values(
            {name: bindparam(f"p_{name}", type_=getattr(StudyRow, name).type) for name in values}
        )
        rows, n = store._run(written, {f"p_{name}": value for name, value in values.items()})
        assert (rows, n) == ([], 1)
        ((row,), n) = store._run(NAMED, {"p_name": WEIRD, "unused": 1})
        with store._single() as connection:
            assert tuple(row) == tuple(connection.execute(NAMED, {"p_name": WEIRD}).one())
        assert (row.name, row.created_at, row.said, row.odd, n) == (WEIRD, moment, "it's 5 %", "%(p_name)s", 1)
        assert row.created_at.tzinfo is UTC
        assert store._run(NAMED, {"p_name": "none"}) == ([], 0)
    execute(cluster.url(), "DROP DATABASE direct WITH (FORCE)")


@pytest.mark.postgres
def test_errors_are_sqlalchemys_and_the_connection_stays_usable(cluster: Cluster) -> None:
    execute(cluster.url(), "CREATE DATABASE direct_errors")
    with SqlStore(cluster.url("direct_errors")) as store:
        store.create_study(make_spec())
        claimed(store, "s")
        wrong = update(TrialRow).where(TrialRow.number == bindparam("p_number")).values(attempts=-1)
        with pytest.raises(StoreError) as caught:
            store._run(wrong, {"p_number": 0})
        assert isinstance(caught.value.__cause__, IntegrityError)
        assert store.load_trial("s", 0).attempts == 1
        assert store._direct is not None
        with store._single() as connection:
            mine = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        execute(cluster.url(), f"SELECT pg_terminate_backend({mine})")
        with pytest.raises(StoreError) as caught:
            store._run(NAMED, {"p_name": "s"})
        cause = caught.value.__cause__
        assert isinstance(cause, OperationalError)
        assert cause.connection_invalidated
        # The next one takes a connection of its own.
        assert store._run(NAMED, {"p_name": "s"})[1] == 1
    execute(cluster.url(), "DROP DATABASE direct_errors WITH (FORCE)")


@pytest.mark.postgres
def test_a_connection_is_used_for_both_ways_in_turn(cluster: Cluster) -> None:
    """A transaction that is rolled back leaves nothing, and what is run alone is there at once."""
    execute(cluster.url(), "CREATE DATABASE direct_turns")
    renamed = update(StudyRow).values(spec=bindparam("p_spec", type_=StudyRow.spec.type))
    with SqlStore(cluster.url("direct_turns")) as store, SqlStore(cluster.url("direct_turns")) as other:
        store.create_study(make_spec())

        def seen() -> str:
            with other._reading() as connection:
                return str(connection.execute(select(StudyRow.spec)).scalar_one())

        for turn in range(3):
            store._run(renamed, {"p_spec": f"alone {turn}"})
            assert seen() == f"alone {turn}"
            with suppress(RuntimeError), store._writing() as connection:
                connection.execute(renamed, {"p_spec": "never"})
                assert seen() == f"alone {turn}"
                raise RuntimeError
            assert seen() == f"alone {turn}"
            with store._reading() as connection:
                level = connection.execute(text("SHOW transaction_isolation")).scalar_one()
                assert level == "repeatable read"
    execute(cluster.url(), "DROP DATABASE direct_turns WITH (FORCE)")


@pytest.mark.postgres
def test_a_server_that_is_away_is_an_error_of_the_store(cluster: Cluster) -> None:
    execute(cluster.url(), "CREATE DATABASE direct_away")
    with SqlStore(cluster.url("direct_away")) as store:
        store.create_study(make_spec())
        cluster.stop()
        try:
            # The first call loses the connection that it had, the second one finds no other.
            for _ in range(2):
                with pytest.raises(StoreError, match="cannot be reached"):
                    store._run(NAMED, {"p_name": "s"})
        finally:
            cluster.start()
        assert store._run(NAMED, {"p_name": "s"})[1] == 1
    execute(cluster.url(), "DROP DATABASE direct_away WITH (FORCE)")
