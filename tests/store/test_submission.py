"""Whose turn it is, against a served-one-by-one oracle."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from autopeft.store import OwnerHistory, QueueEntry, SubmissionState, turn_order

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def entry(study: str, owner: str, minute: int) -> QueueEntry:
    return QueueEntry(study=study, owner=owner, queued_at=NOON + timedelta(minutes=minute))


def test_owners_alternate_whoever_queued_more() -> None:
    queue = [entry(f"a{i}", "ada", i) for i in range(4)] + [entry("b0", "bob", 8), entry("b1", "bob", 9)]
    assert [item.study for item in turn_order(queue, {})] == ["a0", "b0", "a1", "b1", "a2", "a3"]


def test_who_has_fewer_at_work_comes_first_then_who_was_served_longest_ago() -> None:
    queue = [entry("a", "ada", 0), entry("b", "bob", 1), entry("c", "cy", 2)]
    history = {
        "ada": OwnerHistory(n_active=1, last_started_at=NOON - timedelta(hours=9)),
        "bob": OwnerHistory(last_started_at=NOON - timedelta(hours=1)),
        "cy": OwnerHistory(last_started_at=NOON - timedelta(hours=2)),
    }
    assert [item.study for item in turn_order(queue, history)] == ["c", "b", "a"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), max_size=20))
def test_everybody_is_served_once_in_their_own_order_and_nobody_twice_before_another(
    items: list[tuple[str, int]],
) -> None:
    queue = [entry(f"{i:02}", owner, minute) for i, (owner, minute) in enumerate(items)]
    order = turn_order(queue, {})
    assert sorted(order, key=lambda item: item.study) == queue
    left = Counter(item.owner for item in queue)
    had: Counter[str] = Counter()
    for item in order:
        # The owner served now has had no more than anybody who still waits.
        assert all(had[item.owner] <= had[owner] for owner, count in left.items() if count)
        had[item.owner] += 1
        left[item.owner] -= 1
    for owner in "abc":
        own = [item for item in order if item.owner == owner]
        assert own == sorted(own, key=lambda item: (item.queued_at, item.study))


def test_states_are_waiting_active_or_finished() -> None:
    for state in SubmissionState:
        assert state.is_active + state.is_finished + (state is SubmissionState.QUEUED) == 1
