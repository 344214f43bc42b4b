"""StudyReader against what the store itself gives back, on SQLite and PostgreSQL."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import DBAPIError

from autopeft.exceptions import NotFoundError
from autopeft.store import SqlStore, StudyReader
from autopeft.store._models import StudyRow
from autopeft.study import Failure, TrialKind
from tests.store.builders import FAILURE, FakeClock, make_draft, make_measurement, make_spec
from tests.store.conftest import Cluster, execute

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.fixture
def url(any_url: str) -> str:
    return any_url


@pytest.fixture
def store(filled: SqlStore) -> SqlStore:
    return filled


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


def test_text_that_is_no_unicode_is_shown_all_the_same(store: SqlStore, url: str) -> None:
    """As an older version has stored it: half a surrogate pair in the study's name, and wherever a text is."""
    name, shown = "caf\udce9", "caf\\udce9"
    spec = {**make_spec(name).to_dict(), "task": {"name": "a\udcff.csv"}}
    with store._engine.begin() as connection:
        connection.execute(insert(StudyRow).values(name=name, spec=json.dumps(spec), created_at=EPOCH))
    store.add_trial(name, replace(make_draft(1), kind=TrialKind.BASELINE, label="l\udcff", params={"p": "\udcff"}))
    assert store.claim_trial(name, "w\udcff", lease_s=60) is not None
    store.fail_trial(name, 0, "w\udcff", Failure(reason="error", message="no \udce9", traceback="\udce9"))
    store.add_trial(name, make_draft(2))
    assert store.claim_trial(name, "w\udcff", lease_s=60) is not None
    store.set_attribute(name, "command", "search \udce9")
    with StudyReader(url) as reader:
        assert [item.name for item in reader.overviews()] == ["s", "other", shown]
        overview = reader.overview(shown)
        assert (overview.name, overview.spec.task["name"], overview.n_trials_total) == (shown, "a\\udcff.csv", 2)
        assert reader.overview(name) == overview
        row = reader.trials(shown)[0]
        assert (row["label"], row["worker"]) == ("l\\udcff", "w\\udcff")
        assert reader.failures(shown, [0]) == {0: "no \\udce9"}
        assert reader.params(shown, [0]) == {0: {"p": "\\udcff"}}
        assert reader.attributes(shown) == {"command": "search \\udce9"}
        assert [item.worker for item in reader.leases(shown)] == ["w\\udcff"]
        failure = reader.trial(shown, 0).failure
        assert failure == Failure(reason="error", message="no \\udce9", traceback="\\udce9")
        whole = reader.study(shown)
        assert (whole.spec.name, whole.trials[0].draft.label) == (shown, "l\\udcff")
        with pytest.raises(NotFoundError, match=r"'caf\\\\udce9'"):
            reader.overview("caf")
        # A study that has the shown name for its own comes first.
        store.create_study(make_spec(shown))
        assert reader.overview(shown).n_trials_total == 0


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
