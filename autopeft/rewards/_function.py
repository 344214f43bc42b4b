"""Rewards that users write: a function and what must be said about it."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from autopeft.exceptions import UnknownNameError, UsageError
from autopeft.objectives import Direction
from autopeft.rewards._base import BOTH_KINDS, RewardValue
from autopeft.tasks import Task
from autopeft.training import TrainedCandidate

#: Attribute of a function under which `reward` keeps what it was told.
_MARK = "__autopeft_reward__"
_NAME = re.compile(r"[a-z][a-z0-9_]*")

_Measure = TypeVar("_Measure", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionReward:
    """A reward made of a function; build one with `reward`.

    Args:
        function: From a trained candidate to the value.
        name: What it is called.
        way: Which way is better.
        unit: Unit shown to people; empty for scores.
        summary: What it measures.
        source: Where the definition comes from.
        cost: What measuring it takes, in words.
        kinds: Kinds of tasks for which it is defined.
        is_cost: Whether it stands among the costs instead of the metrics.
        needs_language_head: Whether the backbone's checkpoint must hold its language-model head.
    """

    function: Callable[[TrainedCandidate], RewardValue | float]
    name: str
    way: Direction
    unit: str = ""
    summary: str = ""
    source: str = ""
    cost: str = ""
    kinds: frozenset[str] = BOTH_KINDS
    is_cost: bool = False
    needs_language_head: bool = False

    def direction(self, task: Task) -> Direction:
        """As the user said."""
        return self.way

    def settings(self) -> dict[str, Any]:
        """A hash of its source text: values of another text are not comparable."""
        try:
            text = inspect.getsource(self.function)
        except (OSError, TypeError):
            return {}
        return {"code": hashlib.sha256(text.encode()).hexdigest()[:12]}

    def check(self, task: Task) -> None:
        """Any task of its kinds."""

    def reserve(self, n_train: int) -> int:
        """No examples are kept from training."""
        return 0

    def prepare(self, candidate: TrainedCandidate) -> None:
        """Nothing is shared."""

    def measure(self, candidate: TrainedCandidate) -> RewardValue | float:
        """Call the function."""
        return self.function(candidate)


def reward(
    *,
    direction: str,
    unit: str = "",
    name: str | None = None,
    source: str = "",
    cost: str = "",
    kinds: tuple[str, ...] = tuple(sorted(BOTH_KINDS)),
    is_cost: bool = False,
) -> Callable[[_Measure], _Measure]:
    """Declare that a function measures a reward. The function itself stays as it is.

    It takes a `TrainedCandidate` and returns a finite number, or a `RewardValue`.

    Args:
        direction: ``"maximize"`` or ``"minimize"``.
        unit: Unit shown to people; empty for scores.
        name: Lower-case letters, digits and ``_``; None takes the function's.
        source: Where the definition comes from, for example a paper.
        cost: What measuring it takes, in words.
        kinds: ``"classification"``, ``"regression"`` or both.
        is_cost: Whether it stands among the costs of a measurement instead of its metrics.

    Raises:
        UsageError: If a word is none of these.
    """
    if direction not in list(Direction):
        raise UnknownNameError("direction", str(direction), [item.value for item in Direction])
    for kind in kinds:
        if kind not in BOTH_KINDS:
            raise UnknownNameError("kind", str(kind), BOTH_KINDS)

    def declare(function: _Measure) -> _Measure:
        chosen = str(name or getattr(function, "__name__", ""))
        if not _NAME.fullmatch(chosen):
            raise UsageError(
                f"a reward's name must consist of lower-case letters, digits and _, and begin with a letter, but got "
                f"{chosen!r}; pass name=... to @reward."
            )
        made = FunctionReward(
            function=function,
            name=chosen,
            way=Direction(direction),
            unit=unit,
            summary=next(iter((inspect.getdoc(function) or "").splitlines()), ""),
            source=source,
            cost=cost,
            kinds=frozenset(kinds),
            is_cost=is_cost,
        )
        setattr(function, _MARK, made)
        return function

    return declare


def declared(found: Any) -> FunctionReward | None:
    """What `reward` was told about a function; None if it is not declared."""
    made = getattr(found, _MARK, None)
    return made if isinstance(made, FunctionReward) else None
