"""The supervisor: claims trials, has its engine train them, keeps the leases alive, and writes what came out."""

from __future__ import annotations

import functools
import logging
import math
import random
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from autopeft.exceptions import NotFoundError, StoreError, TrialConflictError
from autopeft.orchestrate._inputs import INPUTS
from autopeft.orchestrate._points import write_outcome
from autopeft.orchestrate._portable import SETTINGS, VERSIONS, package_versions, version_problem
from autopeft.orchestrate._worker_id import worker_id
from autopeft.store import LOCAL_EXECUTOR, TrialStore, WorkerFacts, WorkerState
from autopeft.study import Failure, Study, Trial, TrialState

from .desk import Desk
from .facts import machine_resources
from .heartbeat import Heartbeat
from .messages import Ending
from .process import EngineLostError, EngineProcess
from .settings import WorkerSettings

_logger = logging.getLogger("autopeft.worker")

#: A study that was refused is tried again after so long: somebody may have installed what was missing.
_RETRY_S = 60.0
#: Pause before it asks again while nothing waits, at first and at most.
_IDLE_S = (0.25, 2.0)
#: Attribute that a driver sets last before it asks for trials.
_SETTLED = "memory_bytes"
_STORE_PAUSE_S = (0.2, 5.0)

_Result = TypeVar("_Result")


class Supervisor:
    """One worker, from its announcement to its end.

    Args:
        store: Where trials are claimed and results written.
        settings: What it was started with.
        start_engine: Starts an engine; None for a process on this machine.
    """

    def __init__(
        self,
        store: TrialStore,
        settings: WorkerSettings,
        *,
        start_engine: Callable[[], EngineProcess] | None = None,
    ) -> None:
        self.id = worker_id()
        self._store = store
        self._settings = settings
        self._start_engine = start_engine or (
            lambda: EngineProcess(
                settings.engine, memory_limit_bytes=settings.memory_limit_bytes, silence_s=settings.trial_timeout_s
            )
        )
        self._stop_at = math.inf
        self._desk: Desk | None = None
        self._refused: dict[str, tuple[float, str]] = {}
        self._versions = package_versions()
        self._cohorts: dict[str, int] = {}
        self._n_runs = 0
        #: Taken when the last trial ended.
        self._next: list[tuple[str, Trial]] = []
        self._may_hold_unknown = False
        self._is_troubled = False
        facts = WorkerFacts(
            id=self.id,
            host=socket.gethostname(),
            pid=int(self.id.rsplit(":", 2)[1]),
            resources={**machine_resources(), "pool": settings.pool},
            versions=self._versions,
            state=WorkerState.STARTING,
        )
        self._heartbeat = Heartbeat(store, facts, settings.lease_s)

    def stop(self) -> None:
        """Give back what is held and end, within the grace period; may be called by a signal handler or a thread.

        A handler interrupts the very code that looks at this, so there is nothing here to lock.
        """
        self._stop_at = min(self._stop_at, time.monotonic() + self._settings.grace_s)

    @property
    def is_stopping(self) -> bool:
        return self._stop_at < math.inf

    def run(self) -> int:
        """Work until asked to stop, idle for too long, or done with the one trial that was wanted.

        Returns:
            Trials that were trained.

        Raises:
            AutoPeftError: If the store or the engine cannot be used from the start.
        """
        self._heartbeat.start()
        try:
            self._restart_engine()
            self._heartbeat.say(state=WorkerState.IDLE)
            self._serve()
        finally:
            self._heartbeat.say(state=WorkerState.STOPPING)
            if self._desk is not None:
                self._desk.close()
            self._heartbeat.stop()
        return self._n_runs

    def _serve(self) -> None:
        try:
            self._serve_on()
        finally:
            # However it comes to its end, it does not wait for the store for ever.
            self.stop()
            for study, trial in self._next:
                self._release(study, [trial])
            if self._may_hold_unknown:
                self._patiently(self._give_back_unknown)

    def _serve_on(self) -> None:
        idle_since, pause_s = time.monotonic(), _IDLE_S[0]
        while not self.is_stopping:
            if not self._next:
                self._warm_up()
            claimed = self._claim()
            if claimed:
                self._work(claimed[0][0], [trial for _, trial in claimed])
                idle_since, pause_s = time.monotonic(), _IDLE_S[0]
                if self._settings.is_once and self._n_runs:
                    return
                continue
            limit = self._settings.idle_timeout_s
            if limit is not None and time.monotonic() - idle_since > limit:
                _logger.info("idle for %g s (--idle-timeout): it ends.", limit)
                return
            # Workers that were started together must not ask together for ever.
            self._pause(pause_s * random.uniform(0.7, 1.3))
            pause_s = min(2 * pause_s, _IDLE_S[1])

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self.is_stopping and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))

    def _warm_up(self) -> None:
        """Load a study before a trial of it is held, so that nobody waits for a trial that is not being trained."""
        if self._desk is not None and self._desk.resident and self._desk.is_alive:
            return
        try:
            names = self._settings.studies or [
                item.study
                for item in self._store.drivers()
                if item.executor != LOCAL_EXECUTOR and not item.is_expired and item.study not in self._refused
            ]
            # What a study's driver has not settled yet would have to be loaded again.
            ready = (name for name in names if _SETTLED in self._store.load_outline(name).attributes)
            name = next(ready, None)
        except StoreError:
            return
        reason = None if name is None else self._prepare(name)
        if name is not None and reason is not None and not self.is_stopping:
            self._refuse(name, (), reason)

    def _claim(self) -> list[tuple[str, Trial]]:
        if self._next:
            claimed, self._next = self._next, []
            return claimed
        now = time.monotonic()
        if any(at <= now for at, _ in self._refused.values()):
            self._refused = {name: item for name, item in self._refused.items() if item[0] > now}
            self._say_refusals()
        try:
            if self._may_hold_unknown:
                self._give_back_unknown()
            claimed = self._store.claim_next(self.id, **self._wanted())
        except StoreError as error:
            # The claim may have been granted, and only its answer lost.
            self._may_hold_unknown = True
            self._say_trouble("no trial could be claimed", error)
            self._pause(_STORE_PAUSE_S[1] * random.uniform(0.2, 0.6))
            return []
        self._say_it_is_over()
        return claimed

    def _wanted(self) -> dict[str, Any]:
        """What it asks for when it claims trials."""
        ready = self._desk.resident if self._desk is not None else ()
        limit = self._settings.cohort or max((self._cohorts.get(name, 1) for name in ready), default=1)
        return {
            "lease_s": self._settings.lease_s,
            "studies": self._settings.studies or None,
            "prefer": ready,
            "refuse": tuple(self._refused),
            "limit": limit,
        }

    def _say_trouble(self, what: str, error: StoreError) -> None:
        """An outage is said once, however often the store is tried meanwhile."""
        if not self._is_troubled:
            _logger.warning("%s; the store is tried again until it answers: %s", what, error)
        self._is_troubled = True

    def _say_it_is_over(self) -> None:
        if self._is_troubled:
            _logger.warning("the store answers again.")
        self._is_troubled = False

    def _give_back_unknown(self) -> None:
        """Give back trials that were claimed by a request whose answer never came."""
        # What is served by its name may have no driver.
        for study in {*(lease.study for lease in self._store.drivers()), *self._settings.studies}:
            for number, holder in self._store.running_workers(study).items():
                if holder == self.id:
                    with suppress(TrialConflictError):
                        self._store.release_trial(study, number, self.id)
        self._may_hold_unknown = False

    def _work(self, study: str, trials: Sequence[Trial]) -> None:
        """Train trials that were claimed together, or give them back."""
        self._heartbeat.hold(study, [item.number for item in trials])
        try:
            reason = self._prepare(study)
            if reason is not None:
                self._refuse(study, trials, reason)
                return
            self._train(study, trials)
            self._n_runs += len(trials)
        except BaseException:
            self._release(study, trials)
            raise
        finally:
            self._heartbeat.drop()

    def _prepare(self, name: str) -> str | None:
        """Make the engine ready for a study.

        Returns:
            Why this worker cannot serve it; None if it can.
        """
        study = self._patiently(lambda: self._store.load_outline(name))
        if study is None:
            return "the store could not be reached"
        problem = version_problem(study.attributes.get(VERSIONS) or {}, self._versions)
        if problem is not None:
            return problem
        bare = Study(spec=study.spec, trials=(), attributes=_needed(study))
        try:
            refusal = self._open(bare)
        except EngineLostError as error:
            self._restart_engine()
            return f"its engine did not survive loading it: {error}"
        return refusal

    def _open(self, study: Study) -> str | None:
        refusal, cohort = self._require_desk().open(study, is_stopping=lambda: self.is_stopping)
        if refusal is None:
            self._cohorts[study.spec.name] = cohort
            self._heartbeat.say(resources={**self._heartbeat.facts.resources, "cohort": cohort})
        return refusal

    def _refuse(self, study: str, trials: Sequence[Trial], reason: str) -> None:
        _logger.warning("study %s is refused: %s.", study, reason, extra={"study": study})
        self._refused[study] = time.monotonic() + _RETRY_S, reason
        self._release(study, trials)
        self._say_refusals()

    def _say_refusals(self) -> None:
        self._heartbeat.say(refusals={name: words for name, (_, words) in self._refused.items()})

    def _train(self, study: str, trials: Sequence[Trial], *, is_last: bool = True) -> None:
        desk = self._require_desk()
        for trial in trials:
            _logger.info("trial %d begins.", trial.number, extra={"study": study, "trial": trial.number})
        try:
            endings = desk.train(
                study,
                trials,
                worker=self.id,
                lost=lambda: self._heartbeat.lost,
                is_stopping=lambda: self.is_stopping,
            )
        except EngineLostError as error:
            self._restart_engine()
            if len(trials) > 1:
                # Only one of them did it: alone, each shows whether it was the one.
                self._retrain(study, trials)
                return
            endings = [Ending(failure=error.failure)]
        if endings is None:
            self._release(study, [item for item in trials if item.number not in self._heartbeat.lost])
            return
        if desk.gpu_memory_used_bytes is not None:
            used = {"gpu_memory_used_bytes": desk.gpu_memory_used_bytes}
            self._heartbeat.say(resources={**self._heartbeat.facts.resources, **used})
        for trial, ending in zip(trials, endings, strict=True):
            self._write(study, trial, ending, takes_next=is_last and trial is trials[-1] and not desk.is_broken)
        if desk.is_broken:
            _logger.warning("the device is unusable for this engine; another one is started.")
            self._restart_engine()

    def _retrain(self, study: str, trials: Sequence[Trial]) -> None:
        loaded = self._patiently(lambda: self._store.load_outline(study))
        for index, trial in enumerate(trials):
            reason = None
            if loaded is None or self.is_stopping:
                reason = "it was asked to end"
            else:
                reason = self._open(Study(spec=loaded.spec, trials=(), attributes=_needed(loaded)))
            if reason is not None:
                self._release(study, trials[index:])
                return
            self._train(study, [trial], is_last=False)

    def _write(self, study: str, trial: Trial, ending: Ending, *, takes_next: bool) -> None:
        where = {"study": study, "trial": trial.number}

        def write() -> Ending:
            try:
                self._end(study, trial, ending, takes_next=takes_next)
            except ValueError as error:
                # The store's rules for what may be kept, broken by what came out.
                broken = Ending(failure=_broken_rule(error))
                write_outcome(self._store, study, trial, self.id, broken)
                return broken
            return ending

        try:
            written = self._patiently(write)
        except (TrialConflictError, NotFoundError):
            known = self._patiently(lambda: self._store.load_trial(study, trial.number))
            if known is not None and known.worker == self.id and known.state.is_finished:
                # The first of several attempts had come through, and only its answer was lost.
                return
            _logger.warning("trial %d is another worker's by now; this result is not kept.", trial.number, extra=where)
            return
        if written is None:
            _logger.warning("trial %d: the store could not be reached to write its result.", trial.number, extra=where)
            return
        why = "" if written.failure is None else f" ({written.failure.reason}): {written.failure.message}"
        _logger.info("trial %d is %s%s", trial.number, written.state.value, why, extra=where)

    def _end(self, study: str, trial: Trial, ending: Ending, *, takes_next: bool) -> None:
        """Write how a trial ended; if nothing is against it, the next one is taken in the same journey."""
        # What was refused may be tried again, and what is unknown given back, before more is taken.
        is_free = not (self.is_stopping or self._settings.is_once or self._refused or self._may_hold_unknown)
        if not takes_next or not is_free or ending.state is not TrialState.COMPLETE:
            write_outcome(self._store, study, trial, self.id, ending)
            return
        try:
            self._next = self._store.complete_and_claim(
                study, trial.number, self.id, ending.measurements, **self._wanted()
            )
        except StoreError:
            # More may have been granted, and only the answer lost.
            self._may_hold_unknown = True
            raise

    def _release(self, study: str, trials: Sequence[Trial]) -> None:
        for trial in trials:
            with suppress(TrialConflictError, NotFoundError):
                self._patiently(functools.partial(self._store.release_trial, study, trial.number, self.id))

    def _patiently(self, act: Callable[[], _Result]) -> _Result | None:
        """Do something with the store, again and again while it cannot be reached; None if there is no time left."""
        pause_s = _STORE_PAUSE_S[0]
        while True:
            try:
                found = act()
            except StoreError as error:
                if time.monotonic() + pause_s > self._stop_at:
                    return None
                self._say_trouble("the store cannot be reached", error)
            else:
                self._say_it_is_over()
                return found
            # Being asked to stop must not make this a busy loop.
            time.sleep(pause_s)
            pause_s = min(1.5 * pause_s, _STORE_PAUSE_S[1])

    def _require_desk(self) -> Desk:
        if self._desk is None or not self._desk.is_alive:
            return self._restart_engine()
        return self._desk

    def _restart_engine(self) -> Desk:
        if self._desk is not None:
            self._desk.close()
        engine = self._start_engine()
        self._desk = Desk(engine, self._store, grace_s=self._settings.grace_s / 2)
        resources = {**self._heartbeat.facts.resources, **engine.devices, "engine_pid": engine.pid}
        self._heartbeat.say(resources=resources)
        return self._desk


def _broken_rule(error: ValueError) -> Failure:
    return Failure(reason="error", message=f"its result breaks a rule of the store: {error}")


def _needed(study: Study) -> dict[str, object]:
    """What the engine must know of a study's attributes; others, and other settings, change while it is resident."""
    names = ("precision", "backbone_hash", INPUTS)
    found = {name: study.attributes[name] for name in names if name in study.attributes}
    settings = study.attributes.get(SETTINGS) or {}
    wanted = ("task", "reward_options", "allow_pickle", "trust_remote_code", "cohort", "folder")
    return {**found, SETTINGS: {name: settings[name] for name in wanted if name in settings}}
