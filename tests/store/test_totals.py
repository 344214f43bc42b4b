from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from autopeft.store import SqlStore, StoreTotals
from autopeft.study import TrialState
from tests.store.builders import FAILURE, claimed, make_draft, make_measurement, make_spec
from tests.store.conftest import Cluster, execute

START = datetime(2026, 11, 20, tzinfo=UTC)


class Clock:
    now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield str(tmp_path / "a.db")
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    execute(cluster.url(), "CREATE DATABASE totals")
    yield cluster.url("totals")
    execute(cluster.url(), "DROP DATABASE totals WITH (FORCE)")


def test_counts_and_ends_are_those_of_the_studies(url: str) -> None:
    clock = Clock()
    with SqlStore(url, clock=clock) as store, StoreTotals(url, clock=clock) as totals:
        assert totals.trial_counts() == {}
        assert totals.ended_since(START) == []
        assert totals.now() == START
        for name in ("s", "t"):
            store.create_study(make_spec(name))
        claimed(store, "s", rank=1)
        clock.now += timedelta(seconds=12.5)
        store.complete_trial("s", 0, "w", [make_measurement()])
        claimed(store, "s", rank=2)
        store.add_trial("s", make_draft(3))
        claimed(store, "t", rank=1)
        clock.now += timedelta(seconds=3)
        store.fail_trial("t", 0, "w", FAILURE)

        assert totals.trial_counts() == {
            "s": {TrialState.COMPLETE: 1, TrialState.RUNNING: 1, TrialState.WAITING: 1},
            "t": {TrialState.FAILED: 1},
        }
        ended = totals.ended_since(START)
        assert [(item.study, item.state) for item in ended] == [("s", TrialState.COMPLETE), ("t", TrialState.FAILED)]
        # SQLite's julian days resolve tenths of a millisecond.
        assert [item.duration_s for item in ended] == pytest.approx([12.5, 3.0], abs=1e-3)
        assert [item.finished_at for item in ended] == [
            START + timedelta(seconds=12.5),
            START + timedelta(seconds=15.5),
        ]
        # What ended at that very moment is told again; its key tells that it was seen.
        assert totals.ended_since(ended[1].finished_at) == [ended[1]]
        assert totals.ended_since(clock.now + timedelta(microseconds=1)) == []
