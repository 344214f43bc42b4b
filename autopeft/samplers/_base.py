"""What every sampler promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from autopeft.configuration import OptionValue
from autopeft.study import Trial


class Source(StrEnum):
    """Where a suggestion comes from. Append only: the values are stored.

    INITIAL: the design that every search begins with.
    MODEL: a model of the trials so far.
    SPACE_FILLING: the design again, because no model could be trusted.
    RANDOM: a uniform draw.
    """

    INITIAL = "initial"
    MODEL = "model"
    SPACE_FILLING = "space_filling"
    RANDOM = "random"


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A point to evaluate, and why.

    Args:
        params: Canonical params of the point.
        notes: JSON-ready facts kept with the trial: ``source`` (a `Source`) always, ``why`` as a sentence for people,
            and what else the sampler knows.
        left_out: What the sampler's model predicts each observed trial to be without that trial, JSON-ready:
            ``n_search`` (search trials there were), ``numbers`` (of the observed trials) and ``objectives``, by name
            the columns ``observed``, ``mean``, ``low`` and ``high`` in that order, as natural values. It speaks of the
            model and not of the point: all suggestions of a batch have the same, and it is too long to be kept with
            every trial. None without a model.
    """

    params: Mapping[str, OptionValue]
    notes: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, Any] | None = None

    @property
    def source(self) -> Source:
        """Where it comes from; a uniform draw if nothing is noted."""
        return Source(self.notes.get("source", Source.RANDOM))


class Sampler(Protocol):
    """Proposes points of a search space.

    A sampler is a function of the trials it is shown, and of the study's seed. It may keep caches, but nothing that
    changes an answer: a fresh sampler that is shown the same trials says the same, notes included. Confirmations are
    ignored, and so is the order in which trials are given. Proposals compile within the budget; none has the
    configuration of a search or baseline trial of the study's fidelity and seed, whatever its state, and none repeats
    another of its batch.
    """

    def ask(self, trials: Sequence[Trial], n: int) -> list[Suggestion]:
        """Propose the next points.

        Args:
            trials: All trials of the study so far, unfinished ones included.
            n: How many points are wanted, >= 1.

        Returns:
            n different points, fewer only when nothing else in the space is feasible and new.
        """
