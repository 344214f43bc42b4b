"""One process drives a study: it asks for trials, everybody else works or watches."""

from __future__ import annotations

import itertools
import threading
import time
from contextlib import suppress

from autopeft.exceptions import DriverConflictError, NotFoundError, StoreError
from autopeft.orchestrate._events import Progress
from autopeft.orchestrate._narrator import Narrator
from autopeft.orchestrate._patient import impatient
from autopeft.orchestrate._worker_id import is_dead, worker_id
from autopeft.store import DriverLease, StudyFollower, TrialStore

DRIVER_LEASE_S = 60.0
_POLL_S = (0.2, 2.0)
_numbers = itertools.count(1)


class DriverSeat:
    """The right to drive a study, held by a lease that a thread keeps alive.

    Args:
        store: Where the study is.
        study: Its name.
        executor: Where its trials run, by the executor's name.
        progress: Told who drives, and of the trials meanwhile.
        lease_s: Seconds after which somebody else may take over if this process is not heard of, > 0.
    """

    def __init__(
        self, store: TrialStore, study: str, *, executor: str, progress: Progress, lease_s: float = DRIVER_LEASE_S
    ) -> None:
        self._store = store
        self._study = study
        self._executor = executor
        self._progress = progress
        self._lease_s = lease_s
        # Several may be of one process.
        self.holder = f"{worker_id()}#{next(_numbers)}"
        self._lost: str | None = None
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_held(self) -> bool:
        """Whether this one drives, as far as it knows."""
        return self._thread is not None and self._lost is None

    def take(self) -> DriverLease:
        """Try to become the driver; whoever holds the lease now is returned, this one or another.

        Raises:
            NotFoundError: If there is no such study.
            StoreError: If the store cannot be used.
        """
        known = self._store.driver(self._study)
        dead = [known.holder] if known is not None and is_dead(known.holder) else []
        lease = self._store.acquire_driver(
            self._study, self.holder, executor=self._executor, lease_s=self._lease_s, dead_holders=dead
        )
        if lease.holder == self.holder and not self.is_held:
            self._start()
        return lease

    def wait(self) -> None:
        """Become the driver; as long as another one is, follow along and tell what it does.

        Raises:
            NotFoundError: If there is no such study.
            StoreError: If the store cannot be used.
        """
        told: str | None = None
        narrator = Narrator(StudyFollower(self._store, self._study), self._progress)
        pause_s = _POLL_S[0]
        while True:
            lease = self.take()
            if lease.holder == self.holder:
                if told is not None:
                    self._progress.message(f"Driving study {self._study} from here on.")
                return
            if lease.holder != told:
                told = lease.holder
                self._progress.message(
                    f"Study {self._study} is driven by {describe_holder(told)} since {_clock_time(lease)} (executor "
                    f"{lease.executor}). Following along; this process takes over when that one ends or is not heard "
                    f"of for {self._lease_s:.0f} s."
                )
            pause_s = _POLL_S[0] if narrator.look() else min(1.5 * pause_s, _POLL_S[1])
            time.sleep(pause_s)

    def check(self) -> None:
        """Make sure that this one drives still.

        Raises:
            DriverConflictError: If it does not; the message says who does.
        """
        if self._lost is not None:
            raise DriverConflictError(self._lost)

    def release(self) -> None:
        """Let somebody else drive; nothing happens if this one does not."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._done.set()
        thread.join()
        # The lease ends by itself if the store cannot be reached now, and whoever interrupts a search does not wait.
        with suppress(StoreError, NotFoundError):
            impatient(self._store).release_driver(self._study, self.holder)

    def _start(self) -> None:
        self._end_thread()
        self._lost = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, args=(self._done,), name="autopeft-driver", daemon=True)
        self._thread.start()

    def _end_thread(self) -> None:
        """End the thread of a lease that was lost."""
        if self._thread is not None:
            self._done.set()
            self._thread.join()
            self._thread = None

    def _keep(self, done: threading.Event) -> None:
        store = impatient(self._store)
        while not done.wait(self._lease_s / 4):
            try:
                store.keep_driver(self._study, self.holder, self._lease_s)
            except (DriverConflictError, NotFoundError) as error:
                self._lost = str(error)
                return
            except StoreError:
                # A store that is away for a while comes back; then it is seen who drives.
                continue


def process_of(holder: str) -> str:
    """The process that a driver's name names, as `worker_id` does."""
    return holder.partition("#")[0]


def describe_holder(holder: str) -> str:
    """A driver's name in words."""
    parts = process_of(holder).rsplit(":", 3)
    return f"process {parts[2]} on {parts[0]}" if len(parts) == 4 else repr(holder)


def _clock_time(lease: DriverLease) -> str:
    moment = lease.acquired_at.astimezone()
    minutes = lease.held_s / 60
    ago = f"{lease.held_s:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
    return f"{moment:%Y-%m-%d %H:%M:%S} ({ago} ago)"
