"""Whose turn it is: studies share the workers by their weights."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from autopeft.store._cluster import PATIENCE_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A study that has WAITING trials, as far as it decides whose turn it is.

    Args:
        name: The study.
        n_running: Its RUNNING trials.
        weight: Its driver's weight.
        idle_since: When it last got a worker, or when its driver came.
    """

    name: str
    n_running: int
    weight: float
    idle_since: datetime


def by_turn(turns: Collection[Turn], *, prefer: Collection[str], now: datetime) -> list[Turn]:
    """Sort studies by whose turn it is; the contract is `ClusterStore.claim_next`'s."""

    def key(turn: Turn) -> tuple[float, bool, bool, datetime, str]:
        is_patient = (now - turn.idle_since).total_seconds() < PATIENCE_S
        # Among the impatient ones the worker's preference does not count.
        is_unprepared = is_patient and turn.name not in prefer
        return (turn.n_running / turn.weight, is_patient, is_unprepared, turn.idle_since, turn.name)

    return sorted(turns, key=key)
