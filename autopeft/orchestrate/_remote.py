"""Trials that other processes run: the search only asks for them, waits, and says what is going on."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, Protocol

from autopeft.exceptions import MachineError, StoreError
from autopeft.orchestrate._events import Progress
from autopeft.orchestrate._narrator import Narrator
from autopeft.orchestrate._patient import back_since_s, impatient
from autopeft.orchestrate._recover import recover
from autopeft.orchestrate._worker_id import is_dead
from autopeft.store import StudyFollower, TrialStore, WorkerRecord
from autopeft.study import TrialKind, TrialState

_POLL_S = (0.05, 0.5)
_RECOVER_EVERY_S = 2.0
#: Leases that ended while nobody could reach the database are workers' that train on; they are heard of within so long.
_HEARD_AGAIN_S = 30.0
_LOOK_AT_WORKERS_EVERY_S = 2.0
#: The search looks at its clock at least so often.
_LONGEST_WAIT_S = 5.0
#: Workers take seconds to load; before that there is nothing to explain.
_EXPLAIN_AFTER_S = 15.0
#: Trials that wait beyond those for which there are workers, as a share of these: a worker never waits for the sampler.
_LOOKAHEAD = 0.25
#: If trials are short, as many wait as end within so long, and within twice the time that asking for more takes.
_SUPPLY_S = 2.0
#: What costs time is done again only after so many times that long: of a very large study it takes a while.
_REST = 9.0


class Pool(Protocol):
    """Workers that somebody starts and replaces for the search, such as those on a Ray cluster."""

    @property
    def name(self) -> str:
        """Under which its workers say that they belong to it."""

    @property
    def size(self) -> int:
        """How many workers it can hold now."""

    def tend(self, wanted: int) -> str | None:
        """Replace workers that are gone and use what was added; called again and again, and cheap.

        Args:
            wanted: How many there is work for.

        Returns:
            Why there are fewer workers than wanted, in words; None if there are enough.

        Raises:
            MachineError: If there can be none.
        """


class RemoteExecutor:
    """Has the trials of a study run by workers; the database is all that it shares with them.

    Args:
        store: Where trials are enqueued and results appear.
        progress: Told about every trial.
        name: ``"workers"`` or ``"ray"``.
        pool: Workers that are kept for the search; None if somebody else looks after them.
    """

    def __init__(
        self, store: TrialStore, progress: Progress, *, name: str = "workers", pool: Pool | None = None
    ) -> None:
        self._store = store
        self._progress = progress
        self._pool = pool
        self.name = name
        self._follower: StudyFollower | None = None
        self._followed = ""
        self._narrator: Narrator | None = None
        self._n_unfinished = 0
        self._n_running = 0
        self._capacity = 1
        self._taken_per_s = 0.0
        self._counted: tuple[float, int] | None = None
        self._returned: float | None = None
        self._asking_s = 0.0
        self._next_look = 0.0
        self._next_recovery = 0.0
        self._idle_since: float | None = None
        self._said: str | None = None
        self._shortage: str | None = None

    @property
    def slots(self) -> int:
        """How many trials should wait: for each worker one that runs or waits, and a few ahead."""
        return max(self._capacity + self._ahead - self._n_running, self._ahead)

    @property
    def _ahead(self) -> int:
        few = math.ceil(_LOOKAHEAD * self._capacity)
        # Not more for a sampler that is slow: what is asked for together cannot learn from one another.
        needed = math.ceil(self._taken_per_s * (_SUPPLY_S + 2 * min(self._asking_s, _SUPPLY_S)))
        return max(1, few, min(needed, self._capacity))

    def advance(self, study: str, kinds: Collection[TrialKind]) -> bool:
        """Wait until a trial ends or the number of workers changes, for a few seconds at most.

        As long as enough trials wait, several that end in a short time are waited for together.

        Returns:
            False if no trial of these kinds is waiting or running.

        Raises:
            MachineError: If no worker can ever be had.
        """
        called = time.monotonic()
        if self._returned is not None:
            self._asking_s = called - self._returned
        deadline = called + _LONGEST_WAIT_S
        pause_s, capacity, has_news = _POLL_S[0], self._capacity, False
        while True:
            began = time.monotonic()
            has_news |= self._look(study)
            self._count_taken(began)
            mine = self._require(study).unfinished(kinds)
            self._n_unfinished = len(mine)
            self._look_after(study)
            self._n_running = sum(item.state is TrialState.RUNNING for item in mine)
            ended = self._returned = time.monotonic()
            if not mine:
                return False
            self._explain(study, is_anything_running=self._n_running > 0)
            if has_news:
                deadline = min(deadline, ended + _POLL_S[1])
            n_spare = len(mine) - self._n_running - self._ahead // 2
            if (n_spare <= 0 and (has_news or self._capacity > capacity)) or ended > deadline:
                return True
            longest_s = min(_POLL_S[1], max(_POLL_S[0], self._lasts_s(n_spare)))
            time.sleep(min(max(pause_s, _REST * (ended - began)), longest_s))
            pause_s = min(1.3 * pause_s, _POLL_S[1])

    def give_back(self, study: str) -> None:
        """Nothing but to forget when trials were asked for: workers finish what they hold, whoever drives then."""
        self._returned = None

    def _lasts_s(self, n: int) -> float:
        """For how long so many trials are enough; without end where nothing is known, or there are none."""
        return n / self._taken_per_s if n > 0 and self._taken_per_s > 0 else math.inf

    def _count_taken(self, now: float) -> None:
        """Work out how many trials end, and so are taken, per second."""
        n_ended = 0 if self._follower is None else self._follower.n_finished()
        if self._counted is None:
            self._counted = now, n_ended
        elapsed_s = now - self._counted[0]
        if elapsed_s >= _SUPPLY_S:
            self._taken_per_s = (n_ended - self._counted[1]) / elapsed_s
            self._counted = now, n_ended

    def _look_after(self, study: str) -> None:
        now = time.monotonic()
        if now >= self._next_recovery and back_since_s(self._store) >= _HEARD_AGAIN_S:
            self._next_recovery = now + _RECOVER_EVERY_S
            with suppress(StoreError):
                recover(impatient(self._store), study)
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_AT_WORKERS_EVERY_S
        serving = [item for item in self._live() if study not in item.facts.refusals]
        capacity = sum(_batch(item.facts.resources) for item in serving)
        if self._pool is not None:
            self._shortage = self._pool.tend(self._n_unfinished)
            # Those that are still loading will want a trial each.
            capacity += max(0, self._pool.size - len(serving))
        self._capacity = max(1, capacity)
        self._next_look = time.monotonic() + max(_LOOK_AT_WORKERS_EVERY_S, _REST * (time.monotonic() - now))

    def _live(self) -> list[WorkerRecord]:
        found = [item for item in self._store.workers() if not item.is_expired and not is_dead(item.facts.id)]
        if self._pool is not None:
            found = [item for item in found if item.facts.resources.get("pool") == self._pool.name]
        return found

    def _require(self, study: str) -> StudyFollower:
        if self._follower is None or self._followed != study:
            follower = StudyFollower(self._store, study)
            self.follow(study, follower)
            return follower
        return self._follower

    def follow(self, study: str, follower: StudyFollower) -> None:
        """Look at a study through this follower."""
        self._follower, self._followed = follower, study
        self._narrator = Narrator(follower, self._progress)

    def _look(self, study: str) -> bool:
        """Tell of what has changed since the last look.

        Returns:
            Whether a trial has ended.
        """
        self._require(study)
        return self._narrator is not None and self._narrator.look()

    def _explain(self, study: str, *, is_anything_running: bool) -> None:
        """Say why nothing happens, once, and again when the reason is another one."""
        now = time.monotonic()
        if is_anything_running:
            self._idle_since, self._said = None, None
            return
        if self._idle_since is None:
            self._idle_since = now
        if now - self._idle_since < _EXPLAIN_AFTER_S:
            return
        reason = self._reason(study)
        if reason != self._said:
            self._said = reason
            self._progress.message(reason)

    def _reason(self, study: str) -> str:
        live = self._live()
        refusals = {item.facts.id: item.facts.refusals[study] for item in live if study in item.facts.refusals}
        if self._pool is not None and refusals and len(refusals) == len(live):
            raise MachineError(f"no worker can serve study {study}: {_listing(refusals)}")
        if self._shortage is not None and not live:
            return f"Waiting for workers: {self._shortage}"
        if not live:
            hint = "" if self._pool is not None else " Start some with `autopeft worker` on machines that reach it."
            return f"Waiting for workers: none is known to {self._store.url}.{hint}"
        if refusals and len(refusals) == len(live):
            return f"Waiting for workers: all {len(live)} refuse study {study}: {_listing(refusals)}"
        return f"Waiting for workers: {len(live)} are there, busy with other studies or still loading."


def _batch(resources: Mapping[str, Any]) -> int:
    return max(1, int(resources.get("cohort") or 1))


def _listing(refusals: Mapping[str, str]) -> str:
    by_reason: dict[str, list[str]] = {}
    for worker, reason in refusals.items():
        by_reason.setdefault(reason, []).append(worker)
    return "; ".join(f"{reason} ({len(names)} x, first {names[0]})" for reason, names in by_reason.items()) + "."
