from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from autopeft.store import DriverLease, StudyOverview, WorkerFacts, WorkerRecord, WorkerState
from autopeft.study import TrialState
from dashboard.queries import WORKER_COLUMNS, Status, serving, workers_frame
from tests.dashboard.studies import HOSTILE, spec

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def overview(n_waiting: int = 0) -> StudyOverview:
    return StudyOverview(
        id=1,
        spec=spec(),
        n_trials={**dict.fromkeys(TrialState, 0), TrialState.WAITING: n_waiting},
        created_at=NOW,
        started_at=None,
        last_activity_at=NOW,
        time_spent_s=0.0,
        n_points=0,
        token="t",
    )


def driver(executor: str = "workers", minutes: float = 1) -> DriverLease:
    return DriverLease(
        study="study",
        holder="driver:1",
        executor=executor,
        weight=1.0,
        acquired_at=NOW,
        heartbeat_at=NOW,
        expires_at=NOW + timedelta(minutes=minutes),
        read_at=NOW,
    )


def worker(name: str, *, minutes: float = 1, **changes: object) -> WorkerRecord:
    facts = replace(WorkerFacts(id=name, host="box", pid=1, state=WorkerState.IDLE), **changes)  # type: ignore[arg-type]
    return WorkerRecord(
        facts=facts,
        announced_at=NOW - timedelta(hours=1),
        heartbeat_at=NOW + timedelta(minutes=minutes - 1),
        expires_at=NOW + timedelta(minutes=minutes),
        read_at=NOW,
    )


REFUSES = {"study": "lacks backbone 'x'."}


def test_refusals_are_told_with_their_reasons_and_what_to_do() -> None:
    records = [
        worker("a", refusals=REFUSES),
        worker("b", refusals={"other": "no"}),
        worker("c", refusals=REFUSES),
        worker("gone", minutes=-5, refusals={"study": "long ago"}),
    ]
    card = serving(records, overview(), driver())
    assert card.status is Status.WARNING
    assert card.finding == "2 of 3 workers refuse this study: lacks backbone 'x' (a, c)."
    assert "every minute" in card.advice
    waiting = serving(records, overview(3), None)
    assert waiting.status is Status.WARNING
    done = serving(records, overview(), None)
    assert done.status is Status.GOOD
    assert done.finding.endswith("Nothing is left to train.")


def test_many_reasons_and_many_workers_are_told_briefly() -> None:
    records = [worker(str(i), refusals={"study": "old" if i < 5 else HOSTILE}) for i in range(6)]
    assert serving(records, overview(), driver()).finding == (
        f"6 of 6 workers refuse this study: old (0, 1, 2, ...); {HOSTILE} (5)."
    )


def test_a_search_that_trains_by_itself_needs_no_workers() -> None:
    card = serving([worker("a", refusals=REFUSES)], overview(3), driver("local"))
    assert (card.status, "trains its trials itself" in card.finding) == (Status.GOOD, True)


def test_a_search_that_asks_for_workers_needs_some() -> None:
    for records, told in (([], "none is there."), ([worker("a", minutes=-9)], "1 worker of the last day is gone.")):
        card = serving(records, overview(), driver())
        assert card.status is Status.WARNING
        assert card.finding.endswith(told)
        assert "autopeft worker" in card.advice
    well = serving(
        [worker("a", study="study"), worker("b", study="other"), worker("c"), worker("d", minutes=-1)],
        overview(),
        driver(),
    )
    assert well.status is Status.GOOD
    assert well.finding == "3 workers: 1 on this study, 1 on others, 1 on none. None refuses this study."


@pytest.mark.parametrize("lease", [None, driver("local", minutes=-1), driver("workers", minutes=-1)])
def test_a_search_that_nobody_drives(lease: DriverLease | None) -> None:
    assert serving([], overview(), lease).status is Status.GOOD
    left = serving([], overview(2), lease)
    assert (left.status, "again" in left.advice) == (Status.WARNING, True)


def test_the_table_has_every_worker() -> None:
    resources = {"cpus": 2, "cohort": 4, "memory_bytes": 2**34, "gpu": "H100", "gpu_memory_bytes": 80 * 2**30}
    records = [
        worker("gone", minutes=-5),
        worker("busy", state=WorkerState.WORKING, study="study", trials=(3, 4), versions={"torch": "2", "peft": "1"}),
        worker("idle", resources=resources),
        worker("refuses", state=WorkerState.WORKING, study="other", trials=(7,), refusals=REFUSES),
        worker("odd", resources={"cpus": "many", "gpu": 3}),
    ]
    frame = workers_frame(records, "study")
    assert tuple(frame.columns) == WORKER_COLUMNS
    assert frame["worker"].tolist() == ["refuses", "busy", "idle", "odd", "gone"]
    rows = frame.set_index("worker")
    assert rows["does"].to_dict() == {
        "refuses": "trains trial 7 of other",
        "busy": "trains trials 3, 4 of study",
        "idle": "idle",
        "odd": "idle",
        "gone": "gone",
    }
    assert rows["this study"].tolist() == [
        "refuses it: lacks backbone 'x'.",
        "works on it",
        "would serve it",
        "would serve it",
        "",
    ]
    assert rows.loc["idle", "has"] == "2 cores, 4 trials at once, 16.0 GiB memory, 80.0 GiB on the GPU, H100"
    assert rows.loc["odd", "has"] == ""
    assert rows.loc["busy", "versions"] == "peft 1, torch 2"
    assert rows.loc["gone", "heard_of"] == NOW - timedelta(minutes=6)
    assert workers_frame([], "study").empty
