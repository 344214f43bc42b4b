from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from autopeft.store import StudyOverview, StudyReader, WorkerFacts, open_store
from autopeft.study import CurvePoint, TrialState
from dashboard.views._live import interval_s, page_token, token_of
from tests.dashboard.studies import WORKER, draft, full, lora, spec

MOMENT = datetime(2026, 11, 21, tzinfo=UTC)


def overview(n_trials: int, running: int) -> StudyOverview:
    counts = dict.fromkeys(TrialState, 0) | {TrialState.COMPLETE: n_trials - running, TrialState.RUNNING: running}
    return StudyOverview(
        id=1,
        spec=spec(),
        n_trials=counts,
        created_at=MOMENT,
        started_at=None,
        last_activity_at=MOMENT,
        time_spent_s=0.0,
        n_points=0,
        token="t",
    )


def test_large_studies_are_looked_at_less_often_and_finished_ones_seldom() -> None:
    busy = [interval_s(overview(n, 1)) for n in (1, 99, 100, 999, 1000, 10_000)]
    assert busy == [2, 2, 5, 5, 15, 15]
    assert [interval_s(overview(n, 0)) for n in (0, 50, 500, 5000)] == [10, 10, 10, 15]
    waiting = replace(overview(5, 0), n_trials=dict.fromkeys(TrialState, 1))
    assert interval_s(waiting) == 2


def test_the_page_is_drawn_again_when_its_study_changes_and_only_then(url: str) -> None:
    full(url)
    open_store(url).create_study(spec("other"))
    reader = StudyReader(url)
    before = token_of(reader, "study"), token_of(reader, None)
    open_store(url).add_trial("other", draft(lora(1), 100))
    assert token_of(reader, "study") == before[0]
    assert token_of(reader, None) != before[1]


@pytest.mark.parametrize("study", ["study", None])
def test_reading_changes_no_token(study: str | None, full_url: str) -> None:
    reader = StudyReader(full_url)
    assert token_of(reader, study) == token_of(reader, study)


def test_points_of_curves_count_only_where_curves_are_shown(url: str) -> None:
    """The fixture's trial 13 is at work."""
    full(url)
    reader = StudyReader(url)
    before = token_of(reader, "study"), token_of(reader, "study", follows_points=True)
    assert before[1] == page_token([reader.overview("study")], follows_points=True)
    point = CurvePoint(step=10, epoch=1.0, metrics={"accuracy": 0.3}, wall_time_s=1.0)
    open_store(url).add_point("study", 13, WORKER, point)
    assert token_of(reader, "study") == before[0]
    assert token_of(reader, "study", follows_points=True) != before[1]


def test_workers_count_only_where_they_are_shown(url: str) -> None:
    """That a worker is alive is no change; that it refuses a study is."""
    full(url)
    store = open_store(url)
    facts = WorkerFacts(id="w", host="box", pid=1)
    store.announce_worker(facts, lease_s=60)
    reader = StudyReader(url)
    before = token_of(reader, "study"), token_of(reader, "study", follows_workers=True)
    assert before[1] == page_token([reader.overview("study")], workers=reader.workers())
    store.announce_worker(facts, lease_s=120)
    assert token_of(reader, "study", follows_workers=True) == before[1]
    store.announce_worker(replace(facts, refusals={"study": "lacks peft"}), lease_s=60)
    assert token_of(reader, "study") == before[0]
    assert token_of(reader, "study", follows_workers=True) != before[1]
