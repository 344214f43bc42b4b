"""What the garbage collector does in a process that keeps very many trials."""

from __future__ import annotations

import gc

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

    def __init__(self, *, is_on: bool) -> None:
        self._is_on = is_on
        self._n_settled = 0
        self._usual = gc.get_threshold()

    def settle(self, n_trials: int) -> None:
        """Tell the collector how many trials there are."""
        if self._is_on and n_trials - self._n_settled >= _SETTLED_AFTER:
            self._n_settled = n_trials
            gc.set_threshold(_YOUNG, *self._usual[1:])
            gc.collect()
            gc.freeze()

    def end(self) -> None:
        """Hand everything back to the collector."""
        if self._n_settled:
            gc.set_threshold(*self._usual)
            gc.unfreeze()
            self._n_settled = 0
