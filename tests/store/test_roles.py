"""Roles get the rights they need and no others; oracle: PostgreSQL itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from autopeft.exceptions import StoreError, UsageError
from autopeft.store import SqlStore, StudyReader, upgrade
from autopeft.store._roles import grant
from tests.store.builders import claimed, make_spec
from tests.store.conftest import Cluster, execute

pytestmark = pytest.mark.postgres
_numbers = itertools.count()
_SECRET = "pass 'word\" %s :x \\ $$"


@pytest.fixture
def url(cluster: Cluster) -> Iterator[str]:
    name = f"roles_{next(_numbers)}"
    execute(cluster.url(), f"CREATE DATABASE {name}")
    yield cluster.url(name)
    execute(
        cluster.url(), f"DROP DATABASE {name} WITH (FORCE)", "DROP ROLE IF EXISTS writer", "DROP ROLE IF EXISTS reader"
    )


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(_SECRET + "\n")
    path.chmod(0o600)
    return path


def as_role(url: str, role: str, secret: Path) -> str:
    return f"postgresql://{role}@{url.rpartition('@')[2]}?password_file={quote(str(secret))}"


def refused(url: str, *statements: str) -> None:
    for statement in statements:
        with pytest.raises(Exception, match=r"permission denied|must be owner|read-only"):
            execute(url, statement)


def test_a_writer_changes_rows_and_no_table(url: str, secret: Path) -> None:
    upgrade(url)
    grant(url, "writer", secret, writes=True)
    with SqlStore(as_role(url, "writer", secret)) as store:
        store.create_study(make_spec())
        trial = claimed(store, make_spec().name)
        store.release_trial(make_spec().name, trial.number, trial.worker or "")
        assert "password_file" in store.url
        assert _SECRET not in store.url
    own = url.replace(url.partition("//")[2].partition("@")[0], f"writer:{quote(_SECRET, safe='')}")
    refused(
        own, "DROP TABLE trials", "ALTER TABLE trials ADD x int", "CREATE TABLE x (y int)", "CREATE ROLE other",
        "UPDATE autopeft_version SET version_num = 'x'", "SELECT pg_read_file('/etc/passwd')",
    )  # fmt: skip


def test_a_reader_reads_and_changes_nothing_even_if_it_tries_to(url: str, secret: Path) -> None:
    with SqlStore(url) as store:
        store.create_study(make_spec())
    grant(url, "reader", secret, writes=False)
    with StudyReader(as_role(url, "reader", secret)) as reader:
        assert [item.name for item in reader.overviews()] == [make_spec().name]
    with SqlStore(as_role(url, "reader", secret)) as store, pytest.raises(StoreError, match="can only be read"):
        store.set_attribute(make_spec().name, "a", 1)
    own = url.replace(url.partition("//")[2].partition("@")[0], f"reader:{quote(_SECRET, safe='')}")
    refused(own, "DELETE FROM trials", "CREATE TABLE x (y int)", "UPDATE studies SET name = 'x'")
    refused(own, "SET default_transaction_read_only = off; DELETE FROM trials")


def test_called_again_it_renews_the_password_and_takes_back_what_is_too_much(url: str, secret: Path) -> None:
    upgrade(url)
    grant(url, "reader", secret, writes=True)
    grant(url, "reader", secret, writes=False)
    own = url.replace(url.partition("//")[2].partition("@")[0], f"reader:{quote(_SECRET, safe='')}")
    refused(own, "SET default_transaction_read_only = off; DELETE FROM trials")
    secret.write_text("another")
    grant(url, "reader", secret, writes=False)
    with pytest.raises(Exception, match="authentication failed"):
        execute(own, "SELECT 1")
    with StudyReader(as_role(url, "reader", secret)) as reader:
        assert reader.overviews() == []


def test_a_changed_password_is_read_at_the_next_connection(url: str, secret: Path) -> None:
    upgrade(url)
    grant(url, "writer", secret, writes=True)
    with SqlStore(as_role(url, "writer", secret)) as store:
        store.list_studies()
        secret.write_text("changed")
        grant(url, "writer", secret, writes=True)
        store._engine.dispose()
        assert store.list_studies() == []


def test_the_server_never_sees_the_password(url: str, secret: Path, cluster: Cluster) -> None:
    upgrade(url)
    execute(url, "ALTER SYSTEM SET log_statement = 'all'", "SELECT pg_reload_conf()")
    try:
        grant(url, "writer", secret, writes=True)
    finally:
        execute(url, "ALTER SYSTEM RESET log_statement", "SELECT pg_reload_conf()")
    log = (cluster.folder / "log").read_text()
    assert "ROLE writer" in log
    assert "pass 'word" not in log
    assert "pass ''word" not in log


@pytest.mark.parametrize(
    ("role", "match"), [("x; DROP TABLE trials", "letters, digits"), ("autopeft", "name another one")]
)
def test_a_role_must_be_one_and_not_the_owner(cluster: Cluster, secret: Path, role: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        grant(cluster.url(), role, secret, writes=True)


def test_sqlite_has_no_roles(tmp_path: Path, secret: Path) -> None:
    with pytest.raises(UsageError, match="only PostgreSQL has roles"):
        grant(tmp_path / "a.db", "reader", secret, writes=False)


def test_a_password_that_cannot_be_read_is_told(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"role reader is in .*gone, which cannot be read \(No such file"):
        grant(cluster.url(), "reader", tmp_path / "gone", writes=False)
    (tmp_path / "empty").write_text("\nsecond line")
    with pytest.raises(StoreError, match=r"which is empty; write it there"):
        grant(cluster.url(), "reader", tmp_path / "empty", writes=False)
    with pytest.raises(StoreError, match=r"the password of postgresql://x@.*cannot be read"):
        SqlStore(as_role(cluster.url("postgres"), "x", tmp_path / "gone"))


def test_the_files_option_is_no_secret(cluster: Cluster, secret: Path) -> None:
    store_url = as_role(cluster.url("postgres"), "nobody", secret)
    with pytest.raises(StoreError, match="refused the user or password") as caught:
        SqlStore(store_url)
    assert quote(str(secret), safe="") in str(caught.value)
    assert _SECRET not in str(caught.value)
