"""What every page about one study begins with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd

from autopeft.export import format_count, format_share
from autopeft.objectives import Objective
from autopeft.store import StudyOverview, StudyReader
from autopeft.study import StudySpec, TrialState

from .. import queries
from . import _cache, _links
from ._names import STATES

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """The study that a page is about.

    Args:
        url: The database.
        reader: Reads it.
        overview: The study in numbers.
        others: All studies of the database.
    """

    url: str
    reader: StudyReader
    overview: StudyOverview
    others: tuple[StudyOverview, ...]

    @property
    def name(self) -> str:
        return self.overview.name

    @property
    def spec(self) -> StudySpec:
        return self.overview.spec

    @property
    def primary(self) -> Objective:
        """The objective that picks the recommendation."""
        return self.spec.objectives[0]

    @property
    def attributes(self) -> Mapping[str, Any]:
        return _cache.attributes(self.url, self.name, self.overview.token)

    def frame(self, *names: str) -> pd.DataFrame:
        """Trials with roles, the objectives and further values."""
        wanted = tuple(dict.fromkeys([*_cache.objective_names(self.spec), *sorted(names)]))
        return _cache.trials(self.url, self.name, self.overview.token, wanted, self.spec)

    @property
    def axes(self) -> tuple[Objective, ...]:
        return _cache.axes(self.url, self.name, self.overview.token, self.spec)

    @property
    def result(self) -> queries.Result:
        return _cache.result(self.url, self.name, self.overview.token, self.spec)

    @property
    def trial(self) -> int | None:
        """The chosen trial's number if there is such a trial."""
        number = _links.chosen_trial()
        return number if number is not None and number < self.overview.n_trials_total else None

    def kept(self, what: tuple[object, ...], make: Callable[[], T]) -> T:
        """What `make` makes of the study as it is now; made anew only when the study or `what` changes."""
        found: T = _cache.kept(self.url, self.name, self.overview.token, what, make)
        return found

    def words(self, numbers: Any) -> dict[int, str]:
        """Configurations in words."""
        return _cache.words(self.url, self.name, self.frame(), numbers)

    def facts_line(self) -> str:
        """The study in one line."""
        spec = self.spec
        share = format_share(spec.budget, spec.backbone.get("parameters"))
        counts = ", ".join(
            f"{count:,} {STATES[state.value]}" for state in TrialState if (count := self.overview.n_trials[state])
        )
        return (
            f"{spec.task.get('name', '?')} with {spec.backbone.get('name', '?')}; at most "
            f"{format_count(spec.budget)} trainable parameters{f' ({share})' if share else ''}; "
            f"{queries.study_state(self.overview)}: {counts or 'no trials yet'}"
        )
