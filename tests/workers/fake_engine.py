"""An engine without a process: trains nothing, answers as the real one does, and fails when it is told to."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from typing import Any

from autopeft.configuration import known_costs
from autopeft.modules import MODULES
from autopeft.study import CurvePoint, Failure, Fidelity, Measurement, Rung, Trial
from tests.configuration.examples import bert_shapes
from tests.orchestrate.toys import toy_accuracy
from workers.messages import (
    Abort,
    Aborted,
    Ended,
    Ending,
    Open,
    Opened,
    Price,
    Priced,
    Reached,
    Refused,
    Run,
    Started,
    Verdict,
)
from workers.process import EngineLostError

N_STEPS = 9


class FakeEngine:
    """Answers messages at once.

    Args:
        refusal: Why every study is refused; None refuses none.
        rungs: Steps at which each run is measured.
        crashes: Says which trials end the engine.
        hook: Called with each run before it is answered.
        slow: Answers no run until it is aborted.
        cohort: Trials that it trains as one batch.
        gpu_memory_used_bytes: What it says that it holds of a GPU.
    """

    def __init__(
        self,
        *,
        refusal: str | None = None,
        rungs: Sequence[int] = (),
        crashes: Callable[[Trial], bool] = lambda trial: False,
        hook: Callable[[Run], None] = lambda run: None,
        slow: bool = False,
        cohort: int = 1,
        gpu_memory_used_bytes: int | None = None,
    ) -> None:
        self._gpu_memory_used_bytes = gpu_memory_used_bytes
        self._refusal, self._rungs, self._crashes, self._hook = refusal, tuple(rungs), crashes, hook
        self._slow, self._cohort = slow, cohort
        self._out: collections.deque[Any] = collections.deque()
        self._run: Run | None = None
        self._stops: dict[int, int] = {}
        self._points: collections.deque[tuple[int, int]] = collections.deque()
        self.devices = {"device": "fake"}
        self.pid = 4242
        self.is_alive = True
        self.received: list[Any] = []

    def kill(self) -> None:
        self.is_alive = False

    def receive(self, wait_s: float = 0.0, *, is_loading: bool = False) -> Any:
        if not self._out:
            return None
        found = self._out.popleft()
        if isinstance(found, EngineLostError):
            self.is_alive = False
            raise found
        return found

    def send(self, message: Any) -> None:
        self.received.append(message)
        match message:
            case Open():
                name = message.study.spec.name
                if self._refusal is not None:
                    self._out.append(Refused(study=name, reason=self._refusal))
                else:
                    self._out.append(Opened(study=name, cohort=self._cohort, rungs=self._rungs, resident=(name,)))
            case Run():
                self._begin(message)
            case Verdict():
                index, step = self._points.popleft()
                if message.stop:
                    self._stops[index] = step
                    self._points = collections.deque(item for item in self._points if item[0] != index)
                self._next()
            case Price():
                found = tuple(known_costs(item, bert_shapes(), MODULES) for item in message.configurations)
                self._out.append(Priced(costs=found))
            case Abort():
                self._out.append(Aborted(run=message.run))

    def _begin(self, run: Run) -> None:
        self._run, self._stops = run, {}
        self._hook(run)
        self._out.append(Started(placement_parameters=tuple((7,) for _ in run.trials)))
        if any(self._crashes(item) for item in run.trials):
            self._out.append(EngineLostError(Failure(reason="crashed", message="crashed: signal 11 (SIGSEGV).")))
            return
        if self._slow:
            return
        steps = (*self._rungs, N_STEPS)
        self._points = collections.deque((index, step) for index in range(len(run.trials)) for step in steps)
        self._next()

    def _next(self) -> None:
        assert self._run is not None
        if not self._points:
            endings = tuple(self._ending(index, trial) for index, trial in enumerate(self._run.trials))
            self._out.append(
                Ended(run=self._run.run, endings=endings, gpu_memory_used_bytes=self._gpu_memory_used_bytes)
            )
            return
        index, step = self._points[0]
        trial = self._run.trials[index]
        self._out.append(Reached(index=index, curve=(_point(trial, step),)))

    def _ending(self, index: int, trial: Trial) -> Ending:
        step = self._stops.get(index, N_STEPS)
        point = _point(trial, step)
        rung = Rung(step=step, n_steps=N_STEPS) if step < N_STEPS else None
        fidelity: Fidelity = trial.draft.fidelity
        measurement = Measurement(
            split="search", fidelity=fidelity, seed=trial.draft.seed, metrics=dict(point.metrics), rung=rung
        )
        return Ending(measurements=(measurement,), is_stopped_early=rung is not None)


def _point(trial: Trial, step: int) -> CurvePoint:
    accuracy = toy_accuracy(trial.configuration, trial.draft.seed) - 0.3 * (1 - step / N_STEPS)
    return CurvePoint(step=step, epoch=step / N_STEPS, metrics={"accuracy": accuracy}, wall_time_s=0.1 * step)
