"""URLs are read, masked and refused with a way out; drivers' errors become messages."""

from __future__ import annotations

import socket
import sqlite3
import sys
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import make_url

from autopeft.exceptions import StoreError
from autopeft.store import SqlStore, mask_url
from autopeft.store._engine import make_engine, parse_url, shown_url, translated_errors


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql://u:secret@h:5432/d", "postgresql://u:***@h:5432/d"),
        ("postgresql+psycopg://u:se%40c:ret@h/d?sslmode=require", "postgresql+psycopg://u:***@h/d?sslmode=require"),
        ("postgresql://:secret@h/d", "postgresql://:***@h/d"),
        ("postgresql://u:a@b@h/d", "postgresql://u:***@h/d"),
        ("postgresql://h/d?user=u&password=secret&x=1", "postgresql://h/d?user=u&password=***&x=1"),
        ("postgresql://h/d?sslpassword=secret", "postgresql://h/d?sslpassword=***"),
        ("postgresql://u:se/cr?e#t@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:a/b@c@h/d", "postgresql://u:***@h/d"),
        ("postgresql://h:5432/d", "postgresql://h:5432/d"),
        ("no route to postgresql://h:5432/d for a@b", "no route to postgresql://h:5432/d for a@b"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("sqlite:////home/u/a:b@c.db", "sqlite:////home/u/a:b@c.db"),
        ("/home/u/a.db", "/home/u/a.db"),
    ],
)
def test_passwords_are_masked(url: str, masked: str) -> None:
    assert mask_url(url) == masked


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2"])
def test_postgres_always_uses_psycopg(scheme: str) -> None:
    url = parse_url(f"{scheme}://u:p@h:1/d")
    assert url.drivername == "postgresql+psycopg"
    assert shown_url(url) == "postgresql://u:***@h:1/d"


def test_paths_are_sqlite() -> None:
    assert parse_url("a b%20.db").database == "a b%20.db"
    assert parse_url(Path("/x/a.db")).database == "/x/a.db"
    assert parse_url("~/a.db").database == str(Path.home() / "a.db")
    assert parse_url("sqlite:///~/a.db").database == str(Path.home() / "a.db")


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("", "needs a file or URL, but got ''"),
        (":memory:", "needs a file or URL"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite://a.db", "names no file; give sqlite:///relative.db"),
        ("mysql://u:secret@h/d", r"'mysql' databases are not supported, but got 'mysql://u:\*\*\*@h/d'; give sqlite"),
        ("postgresql://u:secret@h:port/d", r"cannot read the database URL 'postgresql://u:\*\*\*@h:port/d'; give"),
        ("://x", "cannot read the database URL"),
    ],
)
def test_bad_urls(url: str, match: str) -> None:
    with pytest.raises(StoreError, match=match) as caught:
        SqlStore(url)
    assert "secret" not in str(caught.value)


def test_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"needs the driver psycopg.*pip install 'autopeft\[postgres\]'"):
        SqlStore("postgresql://u:secret@127.0.0.1/d")


def test_unreachable_server() -> None:
    pytest.importorskip("psycopg")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(StoreError, match=rf"postgresql://u:\*\*\*@127\.0\.0\.1:{port}/d cannot be reached") as caught:
        SqlStore(f"postgresql://u:secret@127.0.0.1:{port}/d")
    assert "secret" not in str(caught.value)
    assert "check that the server runs" in str(caught.value)


def test_password_in_a_drivers_message_is_masked_as_a_word() -> None:
    url = make_url("postgresql+psycopg://u:r@h/d")
    with pytest.raises(StoreError) as caught, translated_errors(url):
        raise sqlite3.OperationalError("connection refused for user=u password r")
    assert "connection refused for user=u password ***" in str(caught.value)


def test_errors_of_our_own_pass_through() -> None:
    with pytest.raises(KeyError), translated_errors(make_url("sqlite:///a.db")):
        raise KeyError("x")


def test_unforeseen_sqlite_errors_keep_their_words() -> None:
    with (
        pytest.raises(StoreError, match=r"database a\.db failed: something new\."),
        translated_errors(make_url("sqlite:///a.db")),
    ):
        raise sqlite3.OperationalError("something new")


def test_write_transactions_take_the_lock_at_their_start(tmp_path: Path) -> None:
    engine = make_engine(parse_url(tmp_path / "a.db"), busy_timeout_s=0.05)
    with engine.begin() as reader, engine.execution_options(writes=True).begin() as writer:
        reader.exec_driver_sql("SELECT 1")
        writer.exec_driver_sql("CREATE TABLE t (x)")
        other = sqlite3.connect(tmp_path / "a.db", timeout=0, isolation_level=None)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.close()
    engine.dispose()


def test_switching_to_wal_waits_for_another_writer(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.3, other.execute, ["COMMIT"])
    timer.start()
    start = time.monotonic()
    with SqlStore(tmp_path / "a.db", busy_timeout_s=30) as store:
        assert time.monotonic() - start > 0.25
        assert store.list_studies() == []
    timer.join()
    other.close()
