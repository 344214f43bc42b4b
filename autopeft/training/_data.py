"""What the inner loop needs of a task; `autopeft.tasks.Task` has it all, and so may an embedder's own class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy.typing as npt


class SplitData(Protocol):
    """Examples of one split."""

    @property
    def texts(self) -> tuple[str, ...]:
        """First text of each example."""

    @property
    def pairs(self) -> tuple[str, ...] | None:
        """Second text of each example; None for tasks with one text."""

    @property
    def targets(self) -> npt.NDArray[Any]:
        """Class indices (int64) or values (float64), one per example."""


class TaskData(Protocol):
    """A task as the inner loop sees it."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str:
        """``"classification"`` or ``"regression"``."""

    @property
    def n_labels(self) -> int:
        """Outputs of the head: the classes, or 1 for regression."""

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Metric names, the primary one first."""

    @property
    def train(self) -> SplitData:
        """Any prefix of it is a fair sample: a lower fidelity uses the first examples."""

    @property
    def search(self) -> SplitData: ...

    @property
    def report(self) -> SplitData: ...

    @property
    def content_hash(self) -> str: ...

    def evaluate(self, predictions: npt.NDArray[Any], targets: npt.NDArray[Any]) -> dict[str, float]:
        """Natural values of the metrics."""
