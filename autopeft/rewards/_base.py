"""What a reward is: a quantity of a trained candidate that chooses among configurations beside the task's metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Protocol

from autopeft.exceptions import UsageError
from autopeft.objectives import Direction, Objective
from autopeft.tasks import CLASSIFICATION, REGRESSION, Task
from autopeft.training import TrainedCandidate

BOTH_KINDS = frozenset({CLASSIFICATION, REGRESSION})


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardValue:
    """A reward's value, and what else was found on the way.

    Args:
        value: The natural value that objectives see.
        details: Further numbers by a short name; stored as ``<reward>.<name>``.
    """

    value: float
    details: Mapping[str, float] = field(default_factory=dict)


class Reward(Protocol):
    """A quantity measured on a trained candidate and one held-out split."""

    @property
    def name(self) -> str:
        """What it is called in measurements and tables."""

    @property
    def unit(self) -> str:
        """Unit shown to people; empty for scores."""

    @property
    def summary(self) -> str:
        """What it measures, in one sentence."""

    @property
    def source(self) -> str:
        """Where the definition comes from: a paper and its arXiv id."""

    @property
    def cost(self) -> str:
        """What measuring it takes, in words."""

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds of tasks for which it is defined."""

    @property
    def is_cost(self) -> bool:
        """Whether it stands among the costs of a measurement instead of its metrics."""

    @property
    def needs_language_head(self) -> bool:
        """Whether the backbone's checkpoint must hold its language-model head."""

    def direction(self, task: Task) -> Direction:
        """Which way is better."""

    def settings(self) -> dict[str, Any]:
        """Everything that its values depend on, JSON-ready."""

    def check(self, task: Task) -> None:
        """Refuse a task on which it cannot be measured.

        Raises:
            UsageError: Says why.
        """

    def reserve(self, n_train: int) -> int:
        """Examples at the end of the training split that no candidate may be trained on."""

    def prepare(self, candidate: TrainedCandidate) -> None:
        """Compute what all candidates share, once; measuring does so itself where it was not called before."""

    def measure(self, candidate: TrainedCandidate) -> RewardValue | float:
        """Measure; whatever it raises fails the trial."""


@dataclass(frozen=True, kw_only=True)
class BuiltinReward:
    """Base of the rewards that come with autopeft; a subclass's fields are its options."""

    name: ClassVar[str]
    way: ClassVar[Direction] = Direction.MINIMIZE
    unit: ClassVar[str] = ""
    summary: ClassVar[str]
    source: ClassVar[str]
    cost: ClassVar[str]
    kinds: ClassVar[frozenset[str]] = BOTH_KINDS
    is_cost: ClassVar[bool] = False
    needs_language_head: ClassVar[bool] = False

    def direction(self, task: Task) -> Direction:
        """`way`, whatever the task."""
        return self.way

    def settings(self) -> dict[str, Any]:
        """The options."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.init}

    def check(self, task: Task) -> None:
        """Every task of its kinds will do."""

    def reserve(self, n_train: int) -> int:
        """No examples are kept from training."""
        return 0

    def prepare(self, candidate: TrainedCandidate) -> None:
        """Nothing is shared."""

    def measure(self, candidate: TrainedCandidate) -> RewardValue | float:
        """Measure; whatever it raises fails the trial."""
        raise NotImplementedError


def objective_of(reward: Reward, task: Task) -> Objective:
    """The objective that a reward is on a task."""
    return Objective(name=reward.name, direction=reward.direction(task), unit=reward.unit)


def check_reward(reward: Reward, task: Task) -> None:
    """Refuse a reward that is not defined for a task.

    Raises:
        UsageError: Says why, and what to do.
    """
    if task.kind not in reward.kinds:
        raise UsageError(
            f"reward {reward.name} is defined for {' and '.join(sorted(reward.kinds))} tasks, but {task.name} is a "
            f"{task.kind}; leave it out of --objective and --record."
        )
    reward.check(task)
