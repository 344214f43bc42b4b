"""Trained candidates of a tiny model to measure rewards on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from autopeft.configuration import Configuration, ModuleSpec, Site
from autopeft.tasks import Task
from autopeft.training import Outcome, RewardReading, TrainedCandidate
from tests.training.toys import job, lora, toy_runner, toy_task

T = TypeVar("T")


class _Look:
    def __init__(self, look: Callable[[TrainedCandidate], Any]) -> None:
        self.look = look
        self.found: Any = None

    def measure(self, candidate: TrainedCandidate) -> RewardReading:
        self.found = self.look(candidate)
        return RewardReading()


def on_candidate(
    look: Callable[[TrainedCandidate], T],
    configuration: Configuration | None = None,
    *,
    task: Task | None = None,
    architecture: str = "bert",
    report: bool = False,
    n: int = 40,
    epochs: int = 2,
    seed: int = 0,
    **keywords: Any,
) -> tuple[T, Outcome]:
    """Train a configuration on a toy task and look at it; of two splits, the last look is returned."""
    looking = _Look(look)
    runner = toy_runner(architecture, task or toy_task(n_train=100), rewards=looking, **keywords)
    chosen = configuration or lora((0, 1, 2), rank=4, rate=1e-2)
    (outcome,) = runner.run([job(chosen, n=n, epochs=epochs, seed=seed, report=report)], keep_state=True)
    assert outcome.failure is None, outcome.failure
    return looking.found, outcome


def placed(*modules: tuple[int, str, ModuleSpec], rate: float = 1e-2) -> Configuration:
    """A configuration of (layer, part, module)."""
    return Configuration.make(
        [(Site(layer=layer, part=part), spec) for layer, part, spec in modules], learning_rate=rate
    )
