"""A search without training: a toy task, a runner that computes scores, and a prepared search over the real spaces."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from autopeft.configuration import BoundSpace, Configuration, load_search_space
from autopeft.modules import MODULES
from autopeft.objectives import COSTS
from autopeft.orchestrate import PreparedSearch, SearchSettings
from autopeft.study import CurvePoint, Failure, Fidelity, Measurement, Rung, StudySpec
from autopeft.training import Job, Outcome, TrainingSettings
from tests.configuration.examples import bert_shapes
from tests.study.builders import ACCURACY

N_EXAMPLES = 60


class ToyTask:
    """Binary labels, all zero."""

    report = SimpleNamespace(targets=np.zeros(N_EXAMPLES))
    search = SimpleNamespace(targets=np.zeros(N_EXAMPLES))
    train = SimpleNamespace(targets=np.zeros(100))
    metrics = {"accuracy": ACCURACY.direction}
    n_labels = 2
    label_names = ("no", "yes")
    description = "a toy task"

    def evaluate(self, predicted: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        return {"accuracy": float((predicted == targets).mean())}


def toy_accuracy(configuration: Configuration, seed: int) -> float:
    """More modules help with diminishing returns; the noise depends on configuration and seed alone."""
    total = sum(item.module.size or 1 for item in configuration.placements)
    noise = int(hashlib.sha256(f"{configuration.fingerprint}{seed}".encode()).hexdigest()[:4], 16) / 0xFFFF
    return 0.5 + 0.3 * (1 - math.exp(-total / 100)) + 0.02 * noise


class ToyRunner:
    """Computes what a training run would score.

    Args:
        fails: Says for which jobs to fail.
        hook: Called before each run, with the jobs.
        rungs: Steps at which runs are measured on the way.
        n_steps: Steps of a run.
        kept: Curves of runs that go on, by fingerprint.
    """

    def __init__(
        self,
        fails: Callable[[Job], bool] = lambda job: False,
        hook: Callable[[Sequence[Job]], None] | None = None,
        *,
        rungs: Sequence[int] = (),
        n_steps: int = 9,
        kept: dict[str, tuple[CurvePoint, ...]] | None = None,
    ) -> None:
        self._fails = fails
        self._hook = hook
        self._rungs = tuple(rungs)
        self._n_steps = n_steps
        self.kept = {} if kept is None else kept
        self.jobs: list[Job] = []
        self.backbone = SimpleNamespace(shapes=bert_shapes())

    def run(
        self, jobs: Sequence[Job], *, on_point: Any = None, on_resume: Any = None, keep_state: bool = False
    ) -> list[Outcome]:
        if self._hook is not None:
            self._hook(jobs)
        self.jobs += jobs
        return [self._outcome(index, job, on_point, on_resume) for index, job in enumerate(jobs)]

    def _outcome(self, index: int, job: Job, on_point: Any, on_resume: Any) -> Outcome:
        if self._fails(job):
            return Outcome(failure=Failure(reason="divergence", message="the training loss became nan"))
        accuracy = toy_accuracy(job.configuration, job.seed)
        curve = self.kept.pop(job.configuration.fingerprint, ())
        stop = bool(curve) and on_resume is not None and on_resume(index, curve)
        for step in (*self._rungs, self._n_steps):
            if stop or (curve and step <= curve[-1].step):
                continue
            score = accuracy - 0.3 * (1 - step / self._n_steps)
            curve += (
                CurvePoint(step=step, epoch=step / self._n_steps, metrics={"accuracy": score}, wall_time_s=0.1 * step),
            )
            stop = on_point is not None and on_point(index, curve[-1])
        if stop and curve[-1].step < self._n_steps:
            self.kept[job.configuration.fingerprint] = curve
            measurement = Measurement(
                split="search",
                fidelity=job.fidelity,
                seed=job.seed,
                metrics=curve[-1].metrics,
                costs={"wall_time_s": curve[-1].wall_time_s},
                rung=Rung(step=curve[-1].step, n_steps=self._n_steps),
            )
            return Outcome(measurements=(measurement,), curve=curve, is_stopped_early=True)
        wrong = np.zeros(N_EXAMPLES)
        wrong[round(accuracy * N_EXAMPLES) :] = 1
        measurements = tuple(
            Measurement(
                split=split,
                fidelity=job.fidelity,
                seed=job.seed,
                metrics={"accuracy": accuracy},
                costs={"wall_time_s": 0.1},
                predictions=tuple(wrong) if split == "report" else None,
            )
            for split in job.splits
        )
        return Outcome(measurements=measurements)


def prepared_search(**changes: Any) -> PreparedSearch:
    """A search of the default space on MiniLM's shapes."""
    settings = SearchSettings(**{"task": "toy", "sampler": "random", "trials": 6, "seeds": 2, **changes})
    shapes = bert_shapes()
    search_space = load_search_space("default", MODULES)
    space = BoundSpace(space=search_space, shapes=shapes, module_types=MODULES, budget=227_132)
    spec = StudySpec(
        name="toy-study",
        task={"name": "toy"},
        backbone={"name": "minilm", "parameters": shapes.parameters},
        space=search_space.to_dict(),
        budget=227_132,
        budget_text="1%",
        sampler=settings.sampler,
        objectives=(ACCURACY, COSTS["trainable_parameters"]),
        fidelity=Fidelity(train_examples=100, epochs=1),
        training={},
        seed=settings.seed,
    )
    return PreparedSearch(
        settings=settings,
        spec=spec,
        task=ToyTask(),  # type: ignore[arg-type]
        backbone=SimpleNamespace(),  # type: ignore[arg-type]
        space=space,
        training=TrainingSettings(),
    )
