"""Whose turn it is; that claims are right is in the contracts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from autopeft.store import PATIENCE_S
from autopeft.store._turns import Turn, by_turn

NOW = datetime(2025, 1, 2, tzinfo=UTC)


def make_turn(name: str, n_running: int = 0, weight: float = 1.0, idle_s: float = 0.0) -> Turn:
    return Turn(name=name, n_running=n_running, weight=weight, idle_since=NOW - timedelta(seconds=idle_s))


def names(*turns: Turn, prefer: str = "") -> str:
    return "".join(turn.name for turn in by_turn(turns, prefer=prefer, now=NOW))


def test_order() -> None:
    assert names(make_turn("a", 2), make_turn("b", 1), make_turn("c", 3, weight=6), prefer="a") == "cba"
    assert names(make_turn("a", idle_s=1), make_turn("b", idle_s=2)) == "ba"
    assert names(make_turn("a", idle_s=1), make_turn("b", idle_s=2), prefer="a") == "ab"
    assert names(make_turn("a"), make_turn("b", idle_s=PATIENCE_S), prefer="a") == "ba"
    assert names(make_turn("a", 1), make_turn("b", 2, idle_s=9 * PATIENCE_S)) == "ab"
    assert names(make_turn("b"), make_turn("a")) == "ab"


@given(
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0]), min_size=2, max_size=5),
    n_workers=st.integers(1, 60),
    prefer=st.sampled_from(["", "a", "ab"]),
)
def test_workers_are_shared_by_weight(weights: list[float], n_workers: int, prefer: str) -> None:
    """No study is further than one trial from its share: the oracle is the share itself."""
    running = dict.fromkeys("abcde"[: len(weights)], 0)
    for _ in range(n_workers):
        turns = [make_turn(name, n, weight) for (name, n), weight in zip(running.items(), weights, strict=True)]
        running[by_turn(turns, prefer=prefer, now=NOW)[0].name] += 1
    shares = {name: n / weight for (name, n), weight in zip(running.items(), weights, strict=True)}
    step = {name: 1 / weight for name, weight in zip(running, weights, strict=True)}
    for name, share in shares.items():
        assert all(share - step[name] <= other + 1e-9 for other in shares.values())
