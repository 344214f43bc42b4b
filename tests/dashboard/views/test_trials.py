from __future__ import annotations

import csv
import io

import pytest

from autopeft.store import StudyReader
from dashboard.views._study import Open
from dashboard.views.trials import _csv, _no_formula
from tests.dashboard.studies import full


@pytest.mark.parametrize("value", ["=1+1", "+1", "-1", "@x", "\tx"])
def test_a_spreadsheet_runs_nothing(value: str) -> None:
    assert _no_formula(value) == f"'{value}"
    assert _no_formula("head only") == "head only"
    assert _no_formula(-1.0) == -1.0


def test_the_file_has_the_chosen_trials_with_every_value(url: str) -> None:
    full(url)
    reader = StudyReader(url)
    overviews = tuple(reader.overviews())
    opened = Open(url=url, reader=reader, overview=overviews[0], others=overviews)
    frame = opened.frame()
    text = _csv(opened, frame[frame["kind"] == "search"]).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    trials = {item.number: item for item in reader.study("study").trials}
    assert [int(row["number"]) for row in rows] == frame.loc[frame["kind"] == "search", "number"].tolist()
    for row in rows:
        trial = trials[int(row["number"])]
        assert row["configuration"] == trial.configuration.describe()
        for name in ("accuracy", "macro_f1", "peak_memory_bytes"):
            value = trial.value(name)
            assert (float(row[name]) if row[name] else None) == (value if value is None else pytest.approx(value))
