from __future__ import annotations

import pytest

from autopeft.store import StudyReader, open_store
from autopeft.study import search_front
from dashboard.queries import STUDY_COLUMNS, filtered, studies_frame, study_facts
from tests.dashboard.studies import full, spec


@pytest.fixture
def reader(url: str) -> StudyReader:
    full(url)
    store = open_store(url)
    store.create_study(spec("empty one", task={"name": "glue/sst2", "content_hash": "g"}))
    return StudyReader(url)


def test_one_row_per_study_latest_first(reader: StudyReader, url: str) -> None:
    """Oracle: the domain's front on the whole study; the fixture for the rest."""
    frame = studies_frame(reader.overviews(), lambda item: study_facts(reader, item))
    assert list(frame.columns) == list(STUDY_COLUMNS)
    assert frame["study"].tolist() == ["empty one", "study"]
    row = frame.iloc[1]
    assert (row["best"], row["baseline"]) == (0.75, 0.60)
    assert row["gain"] == pytest.approx(0.15)
    assert row["hypervolume"] == pytest.approx(search_front(open_store(url).load_study("study")).hypervolume)
    assert (row["complete"], row["pruned"], row["failed"], row["running"], row["waiting"]) == (11, 1, 1, 1, 1)
    assert (row["state"], frame["state"].iloc[0]) == ("running", "empty")
    assert frame.loc[0, ["best", "baseline", "gain", "hypervolume"]].isna().all()


def test_a_loss_is_a_gain_when_it_falls(url: str) -> None:
    from autopeft.objectives import COSTS, Direction, Objective

    loss = Objective(name="accuracy", direction=Direction.MINIMIZE)
    full(url, objectives=(loss, COSTS["trainable_parameters"]))
    reader = StudyReader(url)
    row = studies_frame(reader.overviews(), lambda item: study_facts(reader, item)).iloc[0]
    assert (row["best"], row["baseline"]) == (0.50, 0.40)
    assert row["gain"] == pytest.approx(-0.10)


def test_filters(reader: StudyReader) -> None:
    frame = studies_frame(reader.overviews(), lambda item: study_facts(reader, item))
    assert filtered(frame)["study"].tolist() == ["empty one", "study"]
    assert filtered(frame, text="TINY one")["study"].tolist() == ["empty one"]
    assert filtered(frame, text="sst2 study").empty
    assert filtered(frame, text=".*").empty, "words are words, not patterns"
    assert filtered(frame, tasks=["toy"])["study"].tolist() == ["study"]
    assert filtered(frame, states=["empty"])["study"].tolist() == ["empty one"]
    assert filtered(frame.iloc[:0], text="x", tasks=["toy"]).empty


def test_no_studies(url: str) -> None:
    open_store(url).list_studies()
    assert studies_frame([], lambda item: {}).empty
