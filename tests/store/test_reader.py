"""StudyReader against what the store itself gives back, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import DBAPIError

from autopeft.exceptions import NotFoundError
from autopeft.store import SqlStore, StudyReader, WorkerFacts, WorkerState
from autopeft.store._models import StudyRow
from autopeft.study import CurvePoint, Rung, TrialState
from tests.store.builders import FAILURE, FakeClock, make_draft, make_measurement, make_spec
from tests.store.conftest import Cluster, execute

WORKER = "w"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def claim(store: SqlStore, number: int) -> str:
    trial = store.claim_trial("s", WORKER, lease_s=60, numbers=[number])
    assert trial is not None
    return WORKER


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'a b%20#?.db'}"
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    execute(cluster.url(), "CREATE DATABASE reader_test")
    yield cluster.url("reader_test")
    execute(cluster.url(), "DROP DATABASE reader_test WITH (FORCE)")


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    """Trials in every state: COMPLETE, PRUNED after two rungs, FAILED, RUNNING, WAITING; and a second study."""
    clock = FakeClock()
    with SqlStore(url, clock=clock) as store:
        store.create_study(make_spec())
        store.create_study(make_spec("other"))
        for rank in range(1, 6):
            store.add_trial("s", make_draft(rank))
        held = claim(store, 0)
        store.add_point("s", 0, held, CurvePoint(step=1, epoch=0.5, metrics={"accuracy": 0.5}, wall_time_s=1.0))
        store.add_point("s", 0, held, CurvePoint(step=2, epoch=1.0, metrics={"train_loss": 0.5}, wall_time_s=1.0))
        clock.advance(30)
        store.complete_trial("s", 0, held, [make_measurement(accuracy=0.75), make_measurement(0.7, split="report")])
        for step in (2, 4):
            held = claim(store, 1)
            rung = Rung(step=step, n_steps=8, n_examples=50)
            measured = replace(make_measurement(0.1 * step), rung=rung)
            store.complete_trial("s", 1, held, [measured], state=TrialState.PRUNED)
            if step == 2:
                store.continue_trial("s", 1)
        store.fail_trial("s", 2, claim(store, 2), FAILURE)
        claim(store, 3)
        store.set_note("s", 0, "suggestion", {"source": "model", "predicted": {"accuracy": {"mean": 0.5}}})
        store.set_attribute("s", "summary", {"headline": "good"})
        yield store


def test_overviews_say_what_the_store_says(store: SqlStore, url: str) -> None:
    """Oracle: the store's own summaries, and the clock of the fixture."""
    with StudyReader(url) as reader:
        found = reader.overviews()
        assert [item.name for item in found] == ["s", "other"]
        assert [item.n_trials for item in found] == [item.n_trials for item in store.list_studies()]
        assert found[0].spec == store.load_study("s").spec
        assert found[0].time_spent_s == pytest.approx(30, abs=0.01)
        assert found[0].last_activity_at == store.list_studies()[0].last_activity_at
        assert found[1].started_at is None
        assert found[1].last_activity_at == found[1].created_at
        assert reader.overview("other") == found[1]
        assert reader.attributes("s") == {"summary": {"headline": "good"}}


def test_the_token_changes_with_every_change(store: SqlStore, url: str) -> None:
    with StudyReader(url) as reader:
        tokens = [reader.overview("s").token]
        assert reader.overview("s").token == tokens[0]
        store.add_trial("s", make_draft(9))
        tokens.append(reader.overview("s").token)
        claim(store, 4)
        tokens.append(reader.overview("s").token)
        store.fail_trial("s", 4, WORKER, FAILURE)
        tokens.append(reader.overview("s").token)
        store.set_attribute("s", "more", 1)
        tokens.append(reader.overview("s").token)
        assert len(set(tokens)) == len(tokens)


def test_points_of_running_trials_are_counted(store: SqlStore, url: str) -> None:
    claim(store, 4)
    with StudyReader(url) as reader:
        before = reader.overview("s")
        store.add_point("s", 4, WORKER, CurvePoint(step=1, epoch=0.1, metrics={"accuracy": 0.1}, wall_time_s=1.0))
        after = reader.overview("s")
        assert after.n_points == before.n_points + 1
        assert after.token == before.token
        store.fail_trial("s", 4, WORKER, FAILURE)
        assert reader.overview("s").n_points == 0, "its curve is at its end"


def test_columns_are_those_of_the_trials(store: SqlStore, url: str) -> None:
    """Oracle: `load_study`."""
    study = store.load_study("s")
    with StudyReader(url) as reader:
        rows = reader.trials("s")
        assert [row["number"] for row in rows] == [0, 1, 2, 3, 4]
        for row, trial in zip(rows, study.trials, strict=True):
            assert (row["state"], row["kind"], row["worker"]) == (trial.state.value, trial.kind.value, trial.worker)
            assert row["fingerprint"] == trial.configuration.fingerprint
            assert row["trainable_parameters"] == trial.draft.trainable_parameters
            assert row["finished_at"] == trial.finished_at
            assert row["failure_reason"] == (trial.failure and trial.failure.reason)
        assert rows[0]["duration_s"] == pytest.approx(30, abs=0.01)
        assert rows[4]["duration_s"] is None
        assert reader.study("s") == study
        assert reader.trial("s", 2) == study.trials[2]
        assert reader.configurations("s", [1, 3, 99]) == {n: study.trials[n].configuration for n in (1, 3)}
        assert reader.params("s", range(2000)) == {item.number: item.draft.params for item in study.trials}
        assert reader.failures("s", range(5)) == {2: FAILURE.message}


def test_values_and_curves(store: SqlStore, url: str) -> None:
    """Oracle: what the fixture stored; of a pruned trial the last rung stands last."""
    with StudyReader(url) as reader:
        rows = reader.values("s", ["accuracy", "wall_time_s", "never measured", 'a"b'])
        assert [(row[0], row[1], row[2]) for row in rows] == [(0, None, None), (1, 2, 8), (1, 4, 8)]
        assert [row[4] for row in rows] == pytest.approx([0.75, 0.2, 0.4])
        assert rows[0][5] == make_measurement().costs["wall_time_s"]
        assert all(row[6] is None and row[7] is None for row in rows)
        assert [row[4] for row in reader.values("s", ["accuracy"], split="report")] == [0.7]
        metrics, costs = reader.value_names("s")
        assert metrics == tuple(sorted(make_measurement().metrics))
        assert costs == tuple(sorted(make_measurement().costs))
        assert reader.value_names("other") == ((), ())
        assert reader.curves("s", [0, 1, 4], "accuracy") == [(0, 1, 0.5, 0.5), (0, 2, 1.0, None)]


def test_notes_and_leases(store: SqlStore, url: str) -> None:
    with StudyReader(url) as reader:
        assert reader.notes("s", range(5), "suggestion", "predicted", "accuracy") == {0: {"mean": 0.5}}
        assert reader.notes("s", range(5), "suggestion", "source") == {0: "model"}
        assert reader.notes("s", range(5), "absent", "path") == {}
        assert [(lease.number, lease.outcome) for lease in reader.leases("s")] == [(3, None)]
        store.release_expired("s", dead_workers=[reader.leases("s")[0].worker], max_attempts=3)
        assert [(lease.number, lease.outcome) for lease in reader.leases("s")] == [(3, "lost")]


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


def test_unknown_names_are_said_with_what_there_is(store: SqlStore, url: str) -> None:
    with StudyReader(url) as reader:
        for call in (reader.overview, reader.trials, reader.study, reader.attributes, reader.value_names):
            with pytest.raises(NotFoundError, match=r"no study named 'othr'.*Did you mean 'other'"):
                call("othr")
        with pytest.raises(NotFoundError, match="no trial 77 in study 's'; it has trials 0 to 4"):
            reader.trial("s", 77)


def test_nothing_can_be_written(store: SqlStore, url: str) -> None:
    with (
        StudyReader(url) as reader,
        pytest.raises(DBAPIError, match=r"(?i)read-?only"),
        reader._engine.begin() as connection,
    ):
        connection.execute(insert(StudyRow).values(name="x", spec="{}", created_at=FakeClock().now))


@pytest.mark.postgres
def test_a_role_that_may_only_select_is_enough(cluster: Cluster) -> None:
    execute(cluster.url(), "CREATE DATABASE select_only")
    url = cluster.url("select_only")
    try:
        with SqlStore(url) as store:
            store.create_study(make_spec())
        execute(
            url,
            "DROP ROLE IF EXISTS onlooker",
            "CREATE ROLE onlooker LOGIN PASSWORD 'look'",
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO onlooker",
        )
        with StudyReader(f"postgresql://onlooker:look@127.0.0.1:{cluster.port}/select_only") as reader:
            reader.check()
            assert [item.name for item in reader.overviews()] == ["s"]
            assert reader.study("s").trials == ()
    finally:
        execute(cluster.url(), "DROP DATABASE select_only WITH (FORCE)", "DROP ROLE IF EXISTS onlooker")
