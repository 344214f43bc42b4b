"""The supervisor's side of one engine: opens studies, follows runs, and has the pruner decide at their points."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence

from autopeft.configuration import Configuration
from autopeft.exceptions import NotFoundError, StoreError, TrialConflictError
from autopeft.orchestrate._points import PointKeeper
from autopeft.pruners import Pruner, make_pruner
from autopeft.store import StudyFollower, TrialStore
from autopeft.study import Study, Trial

from .messages import (
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
from .process import EngineLostError, EngineProcess

_logger = logging.getLogger("autopeft.worker")

#: Trial note: trainable parameters of each placement alone, in the configuration's order.
PLACEMENT_NOTE = "placement_parameters"
#: Training waits at most so long for the store at a point; then it goes on, and the point stands in the result alone.
_POINT_PATIENCE_S = 10.0
_POINT_PAUSE_S = 0.5


class Desk:
    """One engine and what it is told.

    Args:
        engine: It runs.
        store: Where points are stored.
        grace_s: An engine that is told to end a run is killed if that takes longer.
    """

    def __init__(self, engine: EngineProcess, store: TrialStore, *, grace_s: float) -> None:
        self._engine = engine
        self._store = store
        self._grace_s = grace_s
        self._run = 0
        self._cohort = 1
        self._pruners: dict[str, tuple[Study, Pruner]] = {}
        # Read at rungs alone; kept from run to run, so that a long study is read once.
        self._followers: dict[str, StudyFollower] = {}
        self._prices: dict[tuple[str, str], dict[str, float]] = {}
        #: Studies that the engine is ready for.
        self.resident: tuple[str, ...] = ()
        #: Whether the engine said that it cannot train any more.
        self.is_broken = False
        #: Memory of the GPU that the engine held when its last run ended; None if it has none.
        self.gpu_memory_used_bytes: int | None = None

    @property
    def is_alive(self) -> bool:
        return self._engine.is_alive and not self.is_broken

    def close(self) -> None:
        """End the engine."""
        self._engine.kill()

    def open(self, study: Study, *, is_stopping: Callable[[], bool]) -> tuple[str | None, int]:
        """Make the engine ready for a study.

        Args:
            study: Its spec and the attributes that matter, without trials.
            is_stopping: Whether the worker was asked to end.

        Returns:
            Why the engine cannot serve it, None if it can; and how many trials it trains as one batch.

        Raises:
            EngineLostError: If loading it ended the engine.
        """
        name = study.spec.name
        known = self._pruners.get(name)
        if known is not None and known[0] == study and self.resident[-1:] == (name,):
            return None, self._cohort
        self._engine.send(Open(study=study))
        while True:
            message = self._engine.receive(is_loading=True)
            if isinstance(message, Refused):
                return message.reason, 0
            if isinstance(message, Opened):
                break
            if is_stopping():
                self.close()
                return "it was asked to end", 0
        self.resident = message.resident
        self._cohort = message.cohort
        self._pruners[name] = study, self._make_pruner(study, message.rungs)
        return None, message.cohort

    def _make_pruner(self, study: Study, rungs: tuple[int, ...]) -> Pruner:
        spec = study.spec

        def known(trial: Trial, name: str) -> float | None:
            if name == "trainable_parameters":
                return trial.value(name)
            return self._price(spec.name, trial.configuration).get(name)

        return make_pruner(
            spec.pruner,
            objectives=spec.objectives,
            fidelity=spec.fidelity,
            rungs=rungs,
            constraints=spec.constraints,
            known=known,
        )

    def _price(self, study: str, configuration: Configuration) -> dict[str, float]:
        """Known costs; the closed forms are the module types' own, which are torch's neighbors."""
        key = study, configuration.fingerprint
        if key not in self._prices:
            self._engine.send(Price(study=study, configurations=(configuration,)))
            message = None
            while not isinstance(message, Priced):
                message = self._engine.receive()
            self._prices[key] = dict(message.costs[0])
        return self._prices[key]

    def train(
        self,
        study: str,
        trials: Sequence[Trial],
        *,
        worker: str,
        lost: Callable[[], Collection[int]],
        is_stopping: Callable[[], bool],
    ) -> list[Ending] | None:
        """Have trials of an open study trained as one batch.

        Args:
            study: Its name.
            trials: They are held by the worker.
            worker: Its name.
            lost: Numbers of the trials that it does not hold any more.
            is_stopping: Whether the worker was asked to end.

        Returns:
            How each ended; None if the run was ended from here, because nothing of it is wanted any more.

        Raises:
            EngineLostError: If training ended the engine.
        """
        self._run += 1
        follower = self._followers.setdefault(study, StudyFollower(self._store, study, running=True))
        keeper = PointKeeper(self._store, study, trials, worker, self._pruners[study][1], follower=follower)
        self._engine.send(Run(run=self._run, study=study, trials=tuple(trials)))
        while True:
            message = self._engine.receive()
            if isinstance(message, Ended):
                return self._ended(message)
            if isinstance(message, Started):
                self._note(study, trials, message)
            elif isinstance(message, Reached):
                self._engine.send(Verdict(stop=self._decide(keeper, message)))
            if is_stopping() or len(set(lost()) & {item.number for item in trials}) == len(trials):
                return self._abort()

    def _abort(self) -> list[Ending] | None:
        """End the run; what came to its end at the same moment still counts."""
        deadline = time.monotonic() + self._grace_s
        try:
            self._engine.send(Abort(run=self._run))
            while time.monotonic() < deadline:
                message = self._engine.receive()
                if isinstance(message, Ended):
                    return self._ended(message)
                if isinstance(message, Aborted):
                    return None
                if isinstance(message, Reached):
                    self._engine.send(Verdict(stop=False))
        except EngineLostError:
            return None
        self.close()
        return None

    def _ended(self, message: Ended) -> list[Ending]:
        self.is_broken = message.is_broken
        self.gpu_memory_used_bytes = message.gpu_memory_used_bytes
        return list(message.endings)

    def _note(self, study: str, trials: Sequence[Trial], started: Started) -> None:
        """Note how many parameters each placement trains, for those who show a trial without knowing the modules."""
        for trial, counts in zip(trials, started.placement_parameters, strict=True):
            if PLACEMENT_NOTE in trial.notes:
                continue
            try:
                self._store.set_note(study, trial.number, PLACEMENT_NOTE, list(counts))
            except (StoreError, NotFoundError) as error:
                _logger.warning("trial %d: its parameters are not noted: %s", trial.number, error)

    def _decide(self, keeper: PointKeeper, reached: Reached) -> bool:
        """Store a point and ask the pruner; training goes on without both while the store cannot be reached."""
        deadline = time.monotonic() + _POINT_PATIENCE_S
        while True:
            try:
                if reached.is_resumed:
                    return keeper.on_resume(reached.index, reached.curve)
                return keeper.on_point(reached.index, reached.curve[-1])
            except (TrialConflictError, NotFoundError):
                return True
            except StoreError as error:
                if time.monotonic() > deadline:
                    _logger.warning("a point of the curve is not stored: %s", error)
                    return False
            time.sleep(_POINT_PAUSE_S)
