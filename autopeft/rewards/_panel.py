"""All rewards of a study, measured together."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

from autopeft.exceptions import RewardError
from autopeft.rewards._base import Reward, RewardValue
from autopeft.training import RewardReading, TrainedCandidate


class RewardPanel:
    """Measures the rewards of a study on trained candidates.

    Args:
        rewards: What to measure, names distinct.
    """

    def __init__(self, rewards: Sequence[Reward]) -> None:
        self.rewards = tuple(rewards)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the rewards."""
        return tuple(item.name for item in self.rewards)

    def reserve(self, n_train: int) -> int:
        """Examples at the end of the training split that must be kept from training."""
        return max((item.reserve(n_train) for item in self.rewards), default=0)

    def prepare(self, candidate: TrainedCandidate) -> None:
        """Compute what all candidates share.

        Raises:
            RewardError: If that fails.
        """
        for item in self.rewards:
            try:
                item.prepare(candidate)
            except (Exception, SystemExit) as error:
                raise RewardError(item.name, _words(error)) from error

    def measure(self, candidate: TrainedCandidate) -> RewardReading:
        """Measure every reward on a candidate's split.

        Raises:
            RewardError: If one raises, or gives something that is not a finite number; the message names it.
        """
        metrics: dict[str, float] = {}
        costs: dict[str, float] = {}
        for item in self.rewards:
            try:
                found = item.measure(candidate)
            except (Exception, SystemExit) as error:
                raise RewardError(item.name, _words(error)) from error
            (costs if item.is_cost else metrics).update(_checked(item.name, found))
        return RewardReading(metrics=metrics, costs=costs)


def _words(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _checked(name: str, found: Any) -> dict[str, float]:
    """A reward's value and details by the names they are stored under.

    Raises:
        RewardError: If one is no finite number.
    """
    value = found if isinstance(found, RewardValue) else RewardValue(value=found)
    details: Any = value.details
    if not isinstance(details, Mapping):
        raise RewardError(name, f"details must be numbers by name, but got {type(details).__name__}.")
    entries: dict[str, Any] = {name: value.value, **{f"{name}.{key}": item for key, item in details.items()}}
    for key, item in entries.items():
        if isinstance(item, bool) or not isinstance(item, numbers.Real):
            raise RewardError(name, f"{key} must be a number, but got {type(item).__name__} {item!r:.60}.")
        if not math.isfinite(item):
            raise RewardError(name, f"{key} must be finite, but got {float(item)}.")
    return {key: float(item) for key, item in entries.items()}
