from __future__ import annotations

import pandas as pd
import pytest

from autopeft.export import StudyResult
from autopeft.store import StudyReader, open_store
from dashboard.queries import result_of, trials_frame
from tests.dashboard.studies import spec


@pytest.fixture(scope="module")
def frame(full_url: str) -> pd.DataFrame:
    with StudyReader(full_url) as reader:
        return trials_frame(reader, "study", ["accuracy"])


def test_without_a_summary_it_concludes_what_the_report_concludes(frame: pd.DataFrame, full_url: str) -> None:
    """Oracle: `StudyResult` on the whole study."""
    study = open_store(full_url).load_study("study")
    found, expected = result_of(frame, study.spec, {}), StudyResult.of(study)
    assert expected.recommended is not None
    assert expected.best_baseline is not None
    assert (found.recommended, found.baseline) == (expected.recommended.number, expected.best_baseline.number)
    # The report names a search trial by its number too.
    assert found.headline == expected.headline
    assert not found.is_final
    assert set(found.reasons) == {found.recommended, found.knee}
    assert "50.00 % of the parameters" in found.reasons[5]


def test_a_summary_is_believed(frame: pd.DataFrame) -> None:
    summary = {"recommended": 3, "best_baseline": 0, "headline": "h", "difference": {"mean": 0.1}, "confirmed": [{}]}
    found = result_of(frame, spec(), {"summary": summary})
    assert (found.recommended, found.baseline, found.headline) == (3, 0, "h")
    assert found.difference == {"mean": 0.1}
    assert not found.is_final, "trials are still running"
    done = frame[~frame["state"].isin(["RUNNING", "WAITING"])]
    assert result_of(done, spec(), {"summary": {**summary, "n_trials": len(done)}}).is_final
    assert not result_of(done, spec(), {"summary": {**summary, "n_trials": len(done) - 1}}).is_final


def test_the_reason_is_the_one_that_the_search_chose_by(frame: pd.DataFrame) -> None:
    """Oracle: the search takes the confirmed trial with the best mean, not the one with the best single value."""
    rows = [
        {"trial": number, "seeds": [1, 2], "search_mean": mean} for number, mean in ((1, 0.9), (3, 0.72), (5, 0.71))
    ]
    found = result_of(frame, spec(), {"summary": {"recommended": 3, "confirmed": rows, "n_trials": len(frame) - 2}})
    assert found.reasons[3].startswith(
        "Trial 3 is recommended: repeated with 2 other seeds it has a mean accuracy of 0.7200 on the search split, the "
        "best of the 2 trials that were repeated, with 25.00 % of the parameters that the budget allows."
    )
    assert found.covered == len(frame) - 2
    odd = {"recommended": 3, "confirmed": [{"trial": 3, "search_mean": "x"}, 3], "n_trials": "all"}
    assert "the best accuracy on the search split" in result_of(frame, spec(), {"summary": odd}).reasons[3]
    assert result_of(frame, spec(), {"summary": odd}).covered is None


def test_a_summary_that_names_no_trial_recommends_none(frame: pd.DataFrame) -> None:
    found = result_of(frame, spec(), {"summary": {"recommended": 999, "best_baseline": "x"}})
    assert (found.recommended, found.baseline) == (None, None)
    assert found.headline


def test_nothing_measured(frame: pd.DataFrame) -> None:
    found = result_of(frame[frame["state"] == "WAITING"], spec(), {})
    assert found.recommended is None
    assert found.reasons == {}
    assert "No search trial" in found.headline
