"""Studies in numbers, on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from autopeft.store import SqlStore, StudyReader
from autopeft.store._engine import make_engine, parse_url
from autopeft.store._models import TrialRow
from autopeft.study import CurvePoint
from tests.store.builders import FAILURE, make_draft
from tests.store.filled import WORKER, claim


@pytest.fixture
def url(any_url: str) -> str:
    return any_url


@pytest.fixture
def store(filled: SqlStore) -> SqlStore:
    return filled


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


def test_the_token_is_the_same_in_whatever_order_rows_are_read(store: SqlStore, url: str) -> None:
    """Sums of times depend on it in their last digit, and a page whose token wavers would be drawn without end.

    PostgreSQL reads a table in the order of its rows' last versions, so that touching rows changes the order.
    """
    engine = make_engine(parse_url(url), busy_timeout_s=5)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with engine.begin() as connection:
        for number, duration_s in enumerate((0.1, 0.2, 0.3)):
            times = {"started_at": start, "finished_at": start + timedelta(seconds=duration_s)}
            failure = {"failure_reason": "killed", "failure_message": "the worker was killed"}
            row = update(TrialRow).where(TrialRow.number == number)
            connection.execute(row.values(state="FAILED", **times, **failure))
    with StudyReader(url) as reader:
        token = reader.overview("s").token
        with engine.begin() as connection:
            connection.execute(update(TrialRow).where(TrialRow.number == 0).values(attempts=TrialRow.attempts))
        assert reader.overview("s").token == token
        assert reader.overviews()[0].token == token
    engine.dispose()
