"""Shared errors name the subject, the value and the way out."""

from __future__ import annotations

import pytest

from autopeft.store import _messages as messages
from autopeft.study import TrialState


@pytest.mark.parametrize(
    ("known", "hint"),
    [
        ([], "It has no studies yet."),
        (["reviews", "other"], "Did you mean 'reviews'?"),
        (["a", "b"], "It has 'a', 'b'."),
        (list("abcdefg"), "It has 'a', 'b', 'c', 'd', 'e', ...."),
    ],
)
def test_unknown_study_offers_what_there_is(known: list[str], hint: str) -> None:
    assert str(messages.study_not_found("review", known, "x.db")) == f"no study named 'review' in x.db. {hint}"


def test_unknown_trial_offers_the_range() -> None:
    assert str(messages.trial_not_found("s", 7, 3)) == "no trial 7 in study 's'; it has trials 0 to 2."
    assert str(messages.trial_not_found("s", 0, 0)) == "no trial 0 in study 's'; it has no trials yet."


def test_mismatch_lists_all_differences_and_two_ways_out() -> None:
    text = str(messages.study_mismatch("s", ["budget: 1 here, 2 there", "seed: 3 here, 4 there"]))
    assert "  - budget: 1 here, 2 there\n  - seed: 3 here, 4 there\n" in text
    assert "--study" in text


def test_lost_lease_says_who_has_it() -> None:
    assert "which is held by 'x'" in str(messages.not_held("s", 1, "w", TrialState.RUNNING, "x"))
    assert "which is FAILED" in str(messages.not_held("s", 1, "w", TrialState.FAILED, None))


def test_lost_worker_counts() -> None:
    assert messages.lost_worker("w", 1).message == "its worker was lost once, the last one was w."
    assert messages.lost_worker("w", 3).message == "its worker was lost 3 times, the last one was w."
