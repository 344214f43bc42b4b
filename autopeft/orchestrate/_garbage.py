"""What the garbage collector does in a process that keeps very many trials."""

from __future__ import annotations

import gc
import threading

#: Trials after which the collector is told that those there are stay.
_SETTLED_AFTER = 1000
#: Objects that are made before the collector looks for garbage among them: those of some 250 trials.
_YOUNG = 50_000


class LastingTrials:
    """Keeps the garbage collector from going through all trials again and again, for seconds if they are many.

    Trials stay until the search ends and are in no cycles. Looking at each of them a few times while it is new costs
    as much as a quarter of drawing it.

    Args:
        is_on: False leaves the collector alone: where the process trains itself there are models, too, which must not
            stay longer than they are used.
    """

    # There is one collector: of several searches in a process the first one changes it, and the last one changes back.
    _lock = threading.Lock()
    _n_at_work = 0
    _usual = gc.get_threshold()

    def __init__(self, *, is_on: bool) -> None:
        self._is_on = is_on
        self._n_settled = 0

    def settle(self, n_trials: int) -> None:
        """Tell the collector how many trials there are."""
        if not self._is_on or n_trials - self._n_settled < _SETTLED_AFTER:
            return
        with self._lock:
            if not self._n_settled:
                self._begin()
            self._n_settled = n_trials
            gc.collect()
            gc.freeze()

    def end(self) -> None:
        """Hand everything back to the collector."""
        with self._lock:
            if not self._n_settled:
                return
            self._n_settled = 0
            LastingTrials._n_at_work -= 1
            if not LastingTrials._n_at_work:
                gc.set_threshold(*self._usual)
                gc.unfreeze()

    def _begin(self) -> None:
        if not LastingTrials._n_at_work:
            young, *older = LastingTrials._usual = gc.get_threshold()
            # 0 is a collector that somebody has turned off.
            if 0 < young < _YOUNG:
                gc.set_threshold(_YOUNG, *older)
        LastingTrials._n_at_work += 1
