"""Which searches are driven now: a loop in a thread, whose whole state is in the database."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from autopeft.exceptions import AutoPeftError
from autopeft.orchestrate import is_dead
from autopeft.service._drivers import INTERRUPTED, Drivers
from autopeft.store import Submission, Submissions, SubmissionState

#: Exit code of a search that the machine ended, not the user: worth another attempt.
_MACHINE: Final = 4
_MAX_ATTEMPTS: Final = 3
_TICK_S: Final = 1.0
_HEARTBEAT_S: Final = 10.0
#: A service that was not heard of for so long is gone.
SILENT_S: Final = 60.0

_log = logging.getLogger(__name__)


class Scheduler:
    """Keeps up to so many searches driven.

    Args:
        submissions: The queue.
        drivers: Starts and stops drivers.
        service: Name of this service's process, as `worker_id` gives it.
        max_active: Searches driven at once, >= 1.
        resolve: Makes of stored settings what a driver reads.
        grace_s: Seconds that a driver has to end once it was asked to, > 0.
        on_complete: Called with the name of every study whose search has ended well.
        clock: Gives seconds that never go back.
    """

    def __init__(
        self,
        submissions: Submissions,
        drivers: Drivers,
        *,
        service: str,
        max_active: int,
        resolve: Callable[[Submission], Mapping[str, Any]],
        grace_s: float = 30.0,
        on_complete: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._submissions = submissions
        self._drivers = drivers
        self._service = service
        self._max_active = max_active
        self._resolve = resolve
        self._grace_s = grace_s
        self._on_complete = on_complete
        self._clock = clock
        self._wake = threading.Event()
        self._is_ending = False
        self._thread: threading.Thread | None = None
        self._asked_at: dict[str, float] = {}
        self._heard_at: float | None = None
        self._is_in_trouble = False

    @property
    def is_alive(self) -> bool:
        """Whether the loop runs and reaches the database."""
        return self._thread is not None and self._thread.is_alive() and not self._is_in_trouble

    def start(self) -> None:
        """Start the loop."""
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Look at the queue now instead of soon."""
        self._wake.set()

    def close(self) -> None:
        """End the loop; drivers put their trials back and end, and the next service goes on with their searches."""
        self._is_ending = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        deadline = self._clock() + self._grace_s
        mine = self._mine()
        for item in mine:
            if item.process is not None:
                self._drivers.stop(item.process, is_patient=True)
        while mine and self._clock() < deadline:
            mine = [item for item in mine if not self._has_ended_at_close(item)]
            time.sleep(0.05)
        for item in mine:
            if item.process is not None:
                self._drivers.stop(item.process, is_patient=False)
            self._put_back(item, counts=False, why="the service ended")

    def tick(self) -> None:
        """One round: be heard of, take over what others left, look after drivers, start the next."""
        self._keep()
        for item in self._mine():
            self._look_after(item)
        while len(self._mine()) < self._max_active:
            chosen = self._submissions.start_next(self._service)
            if chosen is None:
                return
            self._begin(chosen)

    def _run(self) -> None:
        while not self._is_ending:
            try:
                self.tick()
                self._is_in_trouble = False
            except AutoPeftError as error:
                # The database may be restarted; what was stored is there when it is back.
                if not self._is_in_trouble:
                    _log.warning("the scheduler waits: %s", error)
                self._is_in_trouble = True
            except Exception:
                self._is_in_trouble = True
                _log.exception("the scheduler failed and goes on")
            self._wake.wait(_TICK_S)
            self._wake.clear()

    def _keep(self) -> None:
        now = self._clock()
        if self._heard_at is not None and now - self._heard_at < _HEARTBEAT_S:
            return
        self._submissions.keep(self._service)
        others = self._submissions.find(states=(SubmissionState.RUNNING, SubmissionState.STOPPING))
        dead = {item.service for item in others if item.service is not None and is_dead(item.service)}
        for item in self._submissions.take_over(self._service, silent_s=SILENT_S, dead_services=dead):
            _log.info("took over from a service that is gone", extra={"study": item.study})
        self._heard_at = now

    def _mine(self) -> list[Submission]:
        active = self._submissions.find(states=(SubmissionState.RUNNING, SubmissionState.STOPPING))
        return [item for item in active if item.service == self._service]

    def _begin(self, item: Submission) -> None:
        try:
            process = self._drivers.start(item.study, self._resolve(item))
        except AutoPeftError as error:
            self._end(item, SubmissionState.FAILED, str(error))
            return
        try:
            self._submissions.set_process(item.study, self._service, process)
        except AutoPeftError:
            # Nobody would find it again.
            self._drivers.stop(process, is_patient=False)
            raise
        _log.info("driver started", extra={"study": item.study, "owner": item.owner, "driver": process})

    def _look_after(self, item: Submission) -> None:
        if item.process is None:
            # A service ended between taking it and starting its driver.
            self._put_back(item, counts=False, why="its driver was never started")
            return
        code = self._drivers.exit_code(item.study, item.process)
        if code is not None:
            self._asked_at.pop(item.process, None)
            self._conclude(item, code)
        elif item.state is SubmissionState.STOPPING:
            self._press(item.process)

    def _press(self, process: str) -> None:
        """Ask a driver to end once; kill it where the grace period is over."""
        now = self._clock()
        asked_at = self._asked_at.setdefault(process, now)
        if asked_at == now:
            self._drivers.stop(process, is_patient=True)
        elif now - asked_at > self._grace_s:
            self._drivers.stop(process, is_patient=False)

    def _conclude(self, item: Submission, code: int) -> None:
        """Say how a search ended whose driver has."""
        error = self._drivers.last_error(item.study)
        if code == 0:
            self._end(item, SubmissionState.COMPLETE, None)
            self._on_complete(item.study)
        elif item.state is SubmissionState.STOPPING or code == INTERRUPTED:
            self._end(item, SubmissionState.STOPPED, None)
        elif code in (_MACHINE, -1) or code < 0:
            how = "its driver is gone" if code == -1 else f"its driver ended with code {code}"
            why = how if error is None else f"{how}: {error}"
            if item.attempts + 1 >= _MAX_ATTEMPTS:
                self._end(item, SubmissionState.FAILED, f"{why}; given up after {_MAX_ATTEMPTS} attempts.")
            else:
                self._put_back(item, counts=True, why=why)
        else:
            self._end(item, SubmissionState.FAILED, error or f"its driver ended with code {code}.")

    def _has_ended_at_close(self, item: Submission) -> bool:
        code = None if item.process is None else self._drivers.exit_code(item.study, item.process)
        if item.process is not None and code is None:
            return False
        if code in (INTERRUPTED, None) and item.state is SubmissionState.RUNNING:
            self._put_back(item, counts=False, why="the service ended")
        else:
            self._conclude(item, INTERRUPTED if code is None else code)
        return True

    def _end(self, item: Submission, state: SubmissionState, message: str | None) -> None:
        self._submissions.finish(item.study, self._service, state, message)
        _log.info("search ended", extra={"study": item.study, "state": state.value, "why": message})

    def _put_back(self, item: Submission, *, counts: bool, why: str) -> None:
        if item.state is SubmissionState.STOPPING:
            self._end(item, SubmissionState.STOPPED, None)
            return
        self._submissions.put_back(item.study, self._service, counts=counts, message=why)
        _log.info("search waits again", extra={"study": item.study, "why": why})
