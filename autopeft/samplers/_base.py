"""What every sampler promises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from autopeft.configuration import OptionValue
from autopeft.study import Trial


class Sampler(Protocol):
    """Proposes points of a search space.

    A sampler is a function of the trials it is shown, and of the study's seed. It may keep caches, but nothing that
    changes an answer: a fresh sampler that is shown the same trials says the same. Confirmations are ignored, and so
    is the order in which trials are given. Proposals compile within the budget; none has the configuration of a search
    or baseline trial of the study's fidelity and seed, whatever its state, and none repeats another of its batch.
    """

    def ask(self, trials: Sequence[Trial], n: int) -> list[dict[str, OptionValue]]:
        """Propose the next points.

        Args:
            trials: All trials of the study so far, unfinished ones included.
            n: How many points are wanted, >= 1.

        Returns:
            n different points (canonical params), fewer only when nothing else in the space is feasible and new.
        """
