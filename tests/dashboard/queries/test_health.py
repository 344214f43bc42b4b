from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from autopeft.store import LeaseFacts, StudyReader
from dashboard.queries import Card, Status, health_cards, params_frame, trials_frame
from dashboard.queries._health import duplicates, edges, failures, seeds, stagnation, workers
from tests.dashboard.studies import spec

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def frame(full_url: str) -> pd.DataFrame:
    with StudyReader(full_url) as reader:
        return trials_frame(reader, "study", ["accuracy"])


def finished(states: list[str], reasons: list[str | None] | None = None) -> pd.DataFrame:
    return pd.DataFrame({"state": states, "failure_reason": reasons or [None] * len(states)})


def test_every_question_is_answered(frame: pd.DataFrame, full_url: str) -> None:
    with StudyReader(full_url) as reader:
        cards = health_cards(frame, spec(), params_frame(reader, "study", [2, 3, 5]), reader.leases("study"), NOW)
    assert len({card.title for card in cards}) == 6
    assert all(card.finding for card in cards)
    assert all(card.advice for card in cards if card.status is Status.WARNING)


def test_failures_count_when_they_are_many() -> None:
    few = failures(finished(["COMPLETE"] * 8 + ["FAILED"] * 2, [None] * 8 + ["divergence"] * 2))
    assert few.status is Status.GOOD
    assert "2 of 10" in few.finding
    many = failures(finished(["COMPLETE"] * 7 + ["FAILED"] * 3, [None] * 7 + ["out_of_memory"] * 2 + ["x"]))
    assert many.status is Status.WARNING
    assert "30%" in many.finding
    assert "out_of_memory (2), x (1)" in many.finding
    assert "--batch-size" in many.advice
    unforeseen = failures(finished(["FAILED"], ["surprise"]))
    assert "tracebacks" in unforeseen.advice
    assert failures(finished(["WAITING"])).status is Status.UNKNOWN


def growing(n_same: int) -> pd.DataFrame:
    """Two trials that move the front and then some that do not."""
    moment = pd.Timestamp("2026-01-01", tz="UTC")
    n = 2 + n_same
    return pd.DataFrame(
        {
            "number": range(n),
            "kind": "search",
            "state": "COMPLETE",
            "trainable_parameters": [100, 200] + [900] * n_same,
            "accuracy": [0.5, 0.7] + [0.4] * n_same,
            "started_at": moment,
            "finished_at": [moment + pd.Timedelta(minutes=i) for i in range(n)],
        }
    )


def test_a_front_that_stands_still() -> None:
    still = stagnation(growing(20), spec())
    assert still.status is Status.WARNING
    assert "20 trials ago" in still.finding
    assert "space" in still.advice
    moving = stagnation(growing(19), spec())
    assert moving.status is Status.GOOD
    assert "19 trials ago" in moving.finding
    assert "newest trial" in stagnation(growing(0), spec()).finding
    assert stagnation(growing(0).iloc[:0], spec()).status is Status.UNKNOWN


def test_winners_at_the_edge() -> None:
    points = pd.DataFrame({"number": range(4), "rank": [32, 32, 31.9, 4], "learning_rate": [0.001] * 4})
    card = edges(points, spec())
    assert card.status is Status.WARNING
    assert "rank at its high end 32 (3 of 4)" in card.finding
    assert "learning_rate" not in card.finding
    assert edges(points.assign(rank=8), spec()).status is Status.GOOD
    assert edges(points.assign(rank=1), spec()).status is Status.GOOD, "no rank is below one"
    low = edges(points.assign(rank=8, learning_rate=0.0003), spec())
    assert "learning_rate at its low end 0.0003" in low.finding
    assert edges(points.iloc[:2], spec()).status is Status.UNKNOWN
    assert edges(points, spec(space={"name": "mine"})).status is Status.UNKNOWN
    assert edges(points, spec(space={"name": "x", "parameters": {"rank": {"low": "a"}}})).status is Status.UNKNOWN


def test_seeds_that_disagree(frame: pd.DataFrame) -> None:
    """Oracle: the fixture's confirmations spread over 0.04 around a front that spans 0.25."""
    assert seeds(frame, spec()).status is Status.GOOD
    close = frame.copy()
    close.loc[close["number"].isin([2, 3, 4]), "accuracy"] = 0.74
    card = seeds(close, spec())
    assert card.status is Status.WARNING
    assert "cheaper" in card.advice
    assert seeds(frame[frame["kind"] != "confirmation"], spec()).status is Status.UNKNOWN


def test_duplicates(frame: pd.DataFrame) -> None:
    assert duplicates(frame).status is Status.GOOD
    assert "none of them trained twice" in duplicates(frame).finding
    twice = pd.concat([frame, frame[frame["number"] == 4].assign(number=99)])
    card = duplicates(twice)
    assert card.status is Status.WARNING
    assert "4, 99" in card.finding
    assert duplicates(frame.iloc[:0]).status is Status.UNKNOWN


def lease(number: int, outcome: str | None, minutes: float) -> LeaseFacts:
    end = NOW + timedelta(minutes=minutes)
    return LeaseFacts(number, "w", end - timedelta(minutes=1), end, outcome)


def test_lost_workers(frame: pd.DataFrame) -> None:
    well = workers(frame, [lease(1, None, 1)], NOW)
    assert (well.status, "1 trial is being trained" in well.finding) == (Status.GOOD, True)
    lost = workers(frame, [lease(4, "lost", -5), lease(4, "lost", -3)], NOW)
    assert lost.status is Status.WARNING
    assert "2 times a worker was lost (trials 4)" in lost.finding
    silent = workers(frame, [lease(1, None, -10)], NOW)
    assert "11 min" in silent.finding
    assert "again" in silent.advice


def test_an_empty_study(url: str) -> None:
    from autopeft.store import open_store

    open_store(url).create_study(spec())
    reader = StudyReader(url)
    cards = health_cards(
        trials_frame(reader, "study", ["accuracy"]), spec(), params_frame(reader, "study", []), [], NOW
    )
    assert [card.status for card in cards[:5]] == [Status.UNKNOWN] * 5
    assert isinstance(cards[0], Card)
