"""The database itself refuses what the contract forbids, whoever writes to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import CheckConstraint, text
from sqlalchemy.exc import IntegrityError

from autopeft.store import SqlStore, Submissions, WorkerFacts
from autopeft.store._models import Base
from tests.store.builders import FAILURE, claimed, make_draft, make_measurement, make_point, make_spec

#: Trials of the fixture: 0 COMPLETE, 1 FAILED, 2 RUNNING, 3 WAITING.
FORBIDDEN = [
    ("ck_trials_number", "UPDATE trials SET number = -1 WHERE number = 3"),
    ("ck_trials_attempts", "UPDATE trials SET attempts = -1 WHERE number = 3"),
    ("ck_trials_trainable_parameters", "UPDATE trials SET trainable_parameters = -1"),
    ("ck_trials_fidelity", "UPDATE trials SET epochs = 0 WHERE number = 3"),
    ("ck_trials_kind", "UPDATE trials SET kind = 'other' WHERE number = 3"),
    ("ck_trials_role", "UPDATE trials SET role = 'confirmation' WHERE number = 3"),
    ("ck_trials_state", "UPDATE trials SET state = 'DONE' WHERE number = 0"),
    ("ck_trials_started", "UPDATE trials SET started_at = created_at WHERE number = 3"),
    ("ck_trials_started", "UPDATE trials SET started_at = NULL WHERE number = 0"),
    ("ck_trials_finished", "UPDATE trials SET finished_at = NULL WHERE number = 0"),
    ("ck_trials_finished", "UPDATE trials SET finished_at = started_at WHERE number = 2"),
    ("ck_trials_worker", "UPDATE trials SET worker = NULL WHERE number = 2"),
    ("ck_trials_failure_reason", "UPDATE trials SET failure_reason = 'x' WHERE number = 0"),
    ("ck_trials_failure_reason", "UPDATE trials SET failure_reason = NULL WHERE number = 1"),
    ("ck_trials_failure_message", "UPDATE trials SET failure_message = 'x' WHERE number = 2"),
    ("ck_trials_failure_traceback", "UPDATE trials SET failure_traceback = 'x' WHERE number = 3"),
    ("trials.study_id, trials.number", "UPDATE trials SET number = 0 WHERE number = 3"),
    (
        "trials.study_id, trials.role",
        "UPDATE trials SET fingerprint = (SELECT fingerprint FROM trials WHERE number = 0) WHERE number = 3",
    ),
    ("FOREIGN KEY", "UPDATE trials SET parent = 77 WHERE number = 3"),
    ("FOREIGN KEY", "DELETE FROM trials WHERE number = 0"),
    ("FOREIGN KEY", "DELETE FROM leases"),
    ("FOREIGN KEY", "DELETE FROM studies"),
    ("ck_measurements_split", "UPDATE measurements SET split = 'train'"),
    ("ck_measurements_fidelity", "UPDATE measurements SET train_examples = 0"),
    (
        "measurements.trial_id",
        "INSERT INTO measurements (trial_id, split, train_examples, epochs, seed, metrics, costs, environment, curve) "
        "SELECT trial_id, split, train_examples, epochs, seed, metrics, costs, environment, curve FROM measurements",
    ),
    ("ck_measurements_rung", "UPDATE measurements SET rung_n_steps = 9"),
    ("ck_measurements_rung_step", "UPDATE measurements SET rung_step = 9, rung_n_steps = 9"),
    ("NOT NULL", "UPDATE measurements SET metrics = NULL"),
    ("ck_leases_outcome", "UPDATE leases SET outcome = 'gone' WHERE outcome IS NOT NULL"),
    ("ck_leases_ended", "UPDATE leases SET outcome = NULL WHERE outcome IS NOT NULL"),
    ("ck_leases_expiry", "UPDATE leases SET expires_at = '2000-01-01 00:00:00.000000'"),
    (
        "leases.trial_id",
        "INSERT INTO leases (trial_id, worker, claimed_at, heartbeat_at, expires_at) "
        "SELECT trial_id, 'thief', claimed_at, heartbeat_at, expires_at FROM leases WHERE ended_at IS NULL",
    ),
    ("ck_curve_points_step", "UPDATE curve_points SET step = -1"),
    ("ck_drivers_weight", "UPDATE drivers SET weight = 0"),
    ("ck_drivers_expiry", "UPDATE drivers SET expires_at = '2000-01-01 00:00:00.000000'"),
    ("FOREIGN KEY", "UPDATE drivers SET study_id = 77"),
    ("ck_workers_pid", "UPDATE workers SET pid = 0"),
    ("ck_workers_state", "UPDATE workers SET state = 'bored'"),
    ("ck_workers_expiry", "UPDATE workers SET expires_at = '2000-01-01 00:00:00.000000'"),
    ("ck_submissions_state", "UPDATE submissions SET state = 'LATE'"),
    ("ck_submissions_service", "UPDATE submissions SET state = 'RUNNING'"),
    ("ck_submissions_attempts", "UPDATE submissions SET attempts = -1"),
    (
        "submissions.study",
        "INSERT INTO submissions (study, owner, settings, state, attempts, created_at, queued_at) "
        "SELECT study, 'thief', settings, state, attempts, created_at, queued_at FROM submissions",
    ),
    ("studies.name", "INSERT INTO studies (name, spec, created_at) SELECT name, spec, created_at FROM studies"),
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    with SqlStore(tmp_path / "a.db") as store:
        store.create_study(make_spec())
        claimed(store, "s", rank=1)
        store.add_point("s", 0, "w", make_point(1))
        store.complete_trial("s", 0, "w", [make_measurement()])
        claimed(store, "s", rank=2)
        store.fail_trial("s", 1, "w", FAILURE)
        claimed(store, "s", rank=3)
        store.add_trial("s", make_draft(4))
        store.acquire_driver("s", "d", executor="local", lease_s=60)
        store.announce_worker(WorkerFacts(id="w", host="h", pid=1), 60)
        with Submissions(tmp_path / "a.db") as submissions:
            submissions.submit("s", "ada", {})
        yield store


@pytest.mark.parametrize(("rule", "statement"), FORBIDDEN)
def test_database_refuses(store: SqlStore, rule: str, statement: str) -> None:
    before = store.load_study("s")
    with pytest.raises(IntegrityError, match=rule), store._write_engine.begin() as connection:
        connection.execute(text(statement))
    assert store.load_study("s") == before


def test_every_check_has_a_forbidden_example() -> None:
    checks = {
        str(item.name)
        for table in Base.metadata.tables.values()
        for item in table.constraints
        if isinstance(item, CheckConstraint)
    }
    assert checks == {rule for rule, _ in FORBIDDEN if rule.startswith("ck_")}


def test_everything_has_a_name_by_the_convention() -> None:
    for table in Base.metadata.tables.values():
        for item in [*table.constraints, *table.indexes]:
            assert str(item.name).startswith(("pk_", "fk_", "uq_", "ix_", "ck_"))


def test_foreign_keys_and_claims_have_an_index(store: SqlStore) -> None:
    queries = {
        "ix_trials_study_id_state_number": (
            "SELECT id FROM trials WHERE study_id = 1 AND state = 'WAITING' ORDER BY number"
        ),
        "uq_trials_study_id_number|sqlite_autoindex_trials": "SELECT id FROM trials WHERE study_id = 1 AND number = 2",
        "ix_leases_trial_id": "SELECT max(id) FROM leases WHERE trial_id = 1",
        "sqlite_autoindex_measurements": "SELECT id FROM measurements WHERE trial_id = 1",
    }
    with store._engine.connect() as connection:
        for index, query in queries.items():
            plan = " ".join(row[3] for row in connection.execute(text(f"EXPLAIN QUERY PLAN {query}")))
            assert any(name in plan for name in index.split("|")), plan
            assert "SCAN" not in plan
            assert "TEMP B-TREE" not in plan
