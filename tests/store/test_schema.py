"""Migrations: the newest equals the models, older databases are upgraded whole or not at all."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect, text

from autopeft.exceptions import StoreError
from autopeft.store import SqlStore, _schema, upgrade
from autopeft.store._models import Base
from autopeft.study import Rung, TrialState
from tests.store.builders import claimed, make_draft, make_measurement, make_point, make_spec
from tests.store.conftest import Cluster, execute

NEXT_MIGRATION = '''
"""A migration of the future."""
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = "9999", "{head}", None, None
def upgrade():
    op.add_column("trials", sa.Column("color", sa.Text(), nullable=True))
    op.execute("UPDATE trials SET color = 'blue'")
    {then}
'''


#: What the newest migration is really.
HEAD = _schema.HEAD


def sqlite_schema(path: Path) -> set[str]:
    """What SQLite itself says about tables and indexes, with constraints in alphabetical order."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    connection.close()
    statements = set()
    for (sql,) in rows:
        if _schema.VERSION_TABLE not in sql:
            # A table that was copied and renamed has its name in quotes.
            plain = re.sub(r'^CREATE TABLE "(\w+)"', r"CREATE TABLE \1", sql)
            lines = [re.sub(r"\s+", " ", line).strip(" ,") for line in plain.split("\n")]
            statements.add("\n".join(sorted(line for line in lines if line)))
    return statements


@pytest.fixture
def future(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Pretend that this version of autopeft has one more migration; gives the file to write it to."""
    scripts = tmp_path / "migrations"
    shutil.copytree(Path(_schema.__file__).parent / "migrations", scripts)

    def config(connection: Connection | None = None) -> Config:
        made = Config(attributes={} if connection is None else {"connection": connection})
        made.set_main_option("script_location", str(scripts))
        made.set_main_option("path_separator", "os")
        return made

    monkeypatch.setattr(_schema, "HEAD", "9999")
    monkeypatch.setattr(_schema, "alembic_config", config)
    return scripts / "versions" / "v9999_color.py"


def test_head_is_the_newest_migration_and_history_is_a_line() -> None:
    script = ScriptDirectory.from_config(_schema.alembic_config())
    assert script.get_heads() == [_schema.HEAD]
    assert _schema.known_revisions()[0] == _schema.HEAD


def test_migrated_schema_is_the_models_on_sqlite(tmp_path: Path) -> None:
    SqlStore(tmp_path / "migrated.db").close()
    engine = create_engine(f"sqlite:///{tmp_path}/created.db")
    Base.metadata.create_all(engine)
    engine.dispose()
    assert sqlite_schema(tmp_path / "migrated.db") == sqlite_schema(tmp_path / "created.db")


@pytest.mark.postgres
def test_migrated_schema_is_the_models_on_postgres(cluster: Cluster) -> None:
    names = ("schema_migrated", "schema_created")
    execute(cluster.url(), *(f"CREATE DATABASE {name}" for name in names))
    SqlStore(cluster.url(names[0])).close()
    found = []
    for name in names:
        engine = create_engine(cluster.url(name).replace("postgresql:", "postgresql+psycopg:"))
        if name == "schema_created":
            Base.metadata.create_all(engine)
        with engine.connect() as connection:
            constraints = connection.execute(
                text(
                    "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
                    "WHERE connamespace = 'public'::regnamespace"
                )
            )
            indexes = connection.execute(text("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"))
            found.append({tuple(row) for row in [*constraints, *indexes] if "autopeft_version" not in row[0]})
            context = MigrationContext.configure(connection, opts={"version_table": _schema.VERSION_TABLE})
            assert compare_metadata(context, Base.metadata) == []
        engine.dispose()
    execute(cluster.url(), *(f"DROP DATABASE {name} WITH (FORCE)" for name in names))
    assert found[0] == found[1]
    assert len(found[0]) > 25


def test_rungs_are_added_to_a_database_of_the_first_schema(tmp_path: Path) -> None:
    """Oracle: the study as it was before its database was taken back to the first schema."""
    path = tmp_path / "a.db"
    with SqlStore(path) as store:
        store.create_study(make_spec())
        claimed(store, "s", rank=1)
        store.add_point("s", 0, "w", make_point(1))
        store.complete_trial("s", 0, "w", [make_measurement()])
        claimed(store, "s", rank=2)
        before = store.load_study("s")
        stopped = replace(make_measurement(), rung=Rung(step=1, n_steps=9))
        store.complete_trial("s", 1, "w", [stopped], TrialState.PRUNED)
        with store._write_engine.begin() as connection:
            command.downgrade(_schema.alembic_config(connection), "0001")
    with pytest.raises(StoreError, match="schema 0001 of an older autopeft"):
        SqlStore(path)
    assert upgrade(path) == ("0001", HEAD)
    with SqlStore(path) as store:
        after = store.load_study("s")
        assert after.trials[0] == before.trials[0]
        assert (after.trials[1].state, after.trials[1].measurements) == (TrialState.PRUNED, ())


def test_downgrade_takes_everything_away(tmp_path: Path) -> None:
    with SqlStore(tmp_path / "a.db") as store, store._write_engine.begin() as connection:
        command.downgrade(_schema.alembic_config(connection), "base")
        assert inspect(connection).get_table_names() == [_schema.VERSION_TABLE]


def test_older_schema_is_refused_until_upgraded_and_keeps_its_trials(tmp_path: Path, future: Path) -> None:
    path = tmp_path / "a.db"
    with SqlStore(path) as old:  # without the new migration's file, this is the older autopeft
        old.create_study(make_spec())
        old.add_trial("s", make_draft())
        before = old.load_study("s")
    future.write_text(NEXT_MIGRATION.format(head=HEAD, then=""))
    with pytest.raises(StoreError, match=rf"schema {HEAD} of an older autopeft.* `autopeft db upgrade` with the same"):
        SqlStore(path)
    assert upgrade(path) == (HEAD, "9999")
    assert upgrade(path) == ("9999", "9999")
    with SqlStore(path) as store:
        assert store.load_study("s") == before
        with store._engine.connect() as connection:
            assert connection.execute(text("SELECT color FROM trials")).scalars().all() == ["blue"]


def test_failing_upgrade_changes_nothing(tmp_path: Path, future: Path) -> None:
    SqlStore(tmp_path / "a.db").close()
    before = sqlite_schema(tmp_path / "a.db")
    future.write_text(NEXT_MIGRATION.format(head=HEAD, then="op.execute('SELECT no_such_column FROM trials')"))
    with pytest.raises(StoreError, match="no such column"):
        upgrade(tmp_path / "a.db")
    assert sqlite_schema(tmp_path / "a.db") == before
    with pytest.raises(StoreError, match=f"schema {HEAD} of an older autopeft"):
        SqlStore(tmp_path / "a.db")


def test_upgrade_creates_what_is_not_there(tmp_path: Path) -> None:
    assert upgrade(tmp_path / "new" / "a.db") == (None, _schema.HEAD)
    with SqlStore(tmp_path / "new" / "a.db", create=False) as store:
        assert store.list_studies() == []


def test_upgrade_refuses_another_applications_database(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("CREATE TABLE recipes (x)")
    connection.close()
    with pytest.raises(StoreError, match="belongs to another application"):
        upgrade(tmp_path / "a.db")


def test_opening_an_existing_database_does_not_import_alembic(tmp_path: Path) -> None:
    SqlStore(tmp_path / "a.db").close()
    code = (
        "import sys; from autopeft.store import SqlStore; SqlStore(sys.argv[1]).list_studies(); "
        "print([name for name in ('alembic', 'torch', 'psycopg') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.db")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
