"""SqlStore keeps the contract on PostgreSQL, and what is peculiar to a server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from autopeft.exceptions import StoreError
from autopeft.store import SqlStore
from tests.store.builders import claimed, make_draft, make_measurement, make_spec
from tests.store.conftest import PASSWORD, Cluster, execute
from tests.store.sql_contract import SqlContract

pytestmark = pytest.mark.postgres
_numbers = itertools.count()


@pytest.fixture
def url(cluster: Cluster) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    execute(cluster.url(), f"CREATE DATABASE {name}")
    yield cluster.url(name)
    execute(cluster.url(), f"DROP DATABASE {name} WITH (FORCE)")


class TestSqlStoreOnPostgres(SqlContract):
    @pytest.fixture
    def url(self, url: str) -> str:
        return url


def test_password_is_shown_nowhere(cluster: Cluster, url: str) -> None:
    with SqlStore(url) as store:
        assert store.url == f"postgresql://autopeft:***@127.0.0.1:{cluster.port}/{url.rsplit('/', 1)[1]}"
        with pytest.raises(Exception, match="no study named 'x'") as caught:
            store.load_study("x")
        assert "s3cr" not in str(caught.value)


def test_wrong_password(cluster: Cluster) -> None:
    with pytest.raises(StoreError, match=r"refused the user or password of .*correct them in the URL") as caught:
        SqlStore(cluster.url(password="guess-me"))
    assert "guess-me" not in str(caught.value)


def test_missing_database(cluster: Cluster) -> None:
    with pytest.raises(StoreError, match=r"has no database 'nowhere' at .*create it with createdb") as caught:
        SqlStore(cluster.url("nowhere"))
    assert PASSWORD not in str(caught.value)


def test_user_without_rights(cluster: Cluster, url: str) -> None:
    with SqlStore(url) as store:
        store.create_study(make_spec())
    execute(
        url,
        "DROP ROLE IF EXISTS reader",
        "CREATE ROLE reader LOGIN PASSWORD 'r'",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader",
    )
    try:
        with SqlStore(url.replace(url[url.index("autopeft:") : url.index("@")], "reader:r")) as store:
            assert len(store.list_studies()) == 1
            with pytest.raises(StoreError, match=r"may not do this .*grant it"):
                store.add_trial("s", make_draft())
    finally:
        execute(url, "DROP OWNED BY reader", "DROP ROLE reader")


def test_other_tables_in_the_database_are_left_alone(url: str) -> None:
    execute(url, "CREATE TABLE unrelated (x int)")
    with SqlStore(url) as store:
        store.create_study(make_spec())
        assert len(store.list_studies()) == 1
    execute(url, "SELECT x FROM unrelated")


def test_another_applications_studies_are_left_alone(url: str) -> None:
    execute(url, "CREATE TABLE studies (study_id int)")
    with pytest.raises(StoreError, match=r"belongs to another application \(it has the tables studies\)"):
        SqlStore(url)


def test_claims_pass_over_rows_that_another_transaction_holds(url: str) -> None:
    with SqlStore(url) as store:
        store.create_study(make_spec())
        for rank in (1, 2):
            store.add_trial("s", make_draft(rank))
        with store._engine.begin() as other:
            other.execute(text("SELECT 1 FROM trials WHERE number = 0 FOR UPDATE"))
            trial = store.claim_trial("s", "w", lease_s=60)
        assert trial is not None
        assert trial.number == 1


def test_server_that_comes_back_is_used_again(cluster: Cluster, url: str) -> None:
    with SqlStore(url) as store:
        store.create_study(make_spec())
        trial = claimed(store, "s")
        # A claim alone may be lost when a server crashes; with what is written with all care, it is on the disk.
        store.set_attribute("s", "after", "the claim")
        cluster.stop()
        try:
            with pytest.raises(StoreError, match=r"127\.0\.0\.1.*cannot be reached or failed .*check that the server"):
                store.load_study("s")
        finally:
            cluster.start()
        assert store.load_study("s").trials == (trial,)
        store.heartbeat("s", 0, "w", 60)


def test_plans_are_run_as_they_are(url: str) -> None:
    """To compile the plan of a claim takes seconds, and the server does so if it believes in many studies."""
    with SqlStore(url) as store:
        for reading in (store._single, store._writing, store._reading):
            with reading() as connection:
                assert connection.execute(text("SHOW jit")).scalar_one() == "off"
                assert connection.execute(text("SHOW enable_seqscan")).scalar_one() == "off"


def test_what_workers_ask_is_planned_once_however_the_study_grows(url: str) -> None:
    """Oracle: the server's own counts; left to itself it plans anew what costs more than in the beginning."""
    with SqlStore(url) as store:
        store.create_study(make_spec())
        store.add_trials("s", [make_draft(rank) for rank in range(1, 201)])
        found = store.claim_next("w", lease_s=60, studies=["s"])
        for i in range(60):
            if i == 30:
                with store._single() as connection:
                    connection.execute(text("ANALYZE"))
            found = store.complete_and_claim(
                found[0][0], found[0][1].number, "w", [make_measurement()], lease_s=60, studies=["s"]
            )
        with store._single() as connection:
            query = "SELECT name, generic_plans, custom_plans FROM pg_prepared_statements"
            plans = {row.name: (row.generic_plans, row.custom_plans) for row in connection.execute(text(query))}
    assert max(plans.values()) == (60, 0)
    assert all(custom == 0 for _, custom in plans.values())


def test_what_is_read_in_transactions_is_planned_every_time(url: str) -> None:
    with SqlStore(url) as store:
        store.create_study(make_spec())
        for reading, mode in (
            (store._writing, "force_custom_plan"),
            (store._reading, "force_custom_plan"),
            (store._single, "force_generic_plan"),
        ):
            with reading() as connection:
                assert connection.execute(text("SHOW plan_cache_mode")).scalar_one() == mode
