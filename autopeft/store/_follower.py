"""A study that is looked at again and again: each look reads what can have changed, and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from autopeft.store._base import StudyMark, TrialStore
from autopeft.study import Study, StudySpec, Trial, TrialKind, TrialState


class Subscription:
    """Collects what has changed between two times that somebody asks, whoever refreshed the follower meanwhile."""

    def __init__(self, follower: StudyFollower) -> None:
        self.follower = follower
        self._changed: dict[int, Trial] = {}

    def add(self, changed: Iterable[Trial]) -> None:
        """Remember what has changed."""
        self._changed |= {trial.number: trial for trial in changed}

    def take(self) -> tuple[Trial, ...]:
        """The trials that were new or have changed since the last call, as they are now, by number."""
        changed, self._changed = self._changed, {}
        return tuple(trial for _, trial in sorted(changed.items()))


class StudyFollower:
    """Holds a study and keeps it up to date at the cost of what has happened since the last look.

    The study's attributes are those of the first look, and a finished trial's notes those of the look that saw it
    finish. What it gives is shared between looks and must not be changed.

    Args:
        store: Where the study is.
        name: Its name.
        running: Whether running trials are read again at every look, with the points of their learning curves; else
            only when they are claimed and when they end.
    """

    def __init__(self, store: TrialStore, name: str, *, running: bool = False) -> None:
        self._store = store
        self._name = name
        self._running = running
        self._mark: StudyMark | None = None
        self._spec: StudySpec | None = None
        self._attributes: Mapping[str, Any] = {}
        self._trials: list[Trial] = []
        self._counts: Counter[tuple[TrialKind, TrialState]] = Counter()
        self._unfinished: dict[int, Trial] = {}
        self._subscriptions: list[Subscription] = []
        #: Trials that were new or had changed at the last look, by number.
        self.changed: tuple[Trial, ...] = ()

    def refresh(self) -> Study:
        """Look at the study.

        Returns:
            The study as it was at one moment.

        Raises:
            NotFoundError: If there is no study of that name.
        """
        changes = self._store.load_changes(self._name, self._mark, running=self._running)
        if changes.spec is not None:
            self._spec, self._attributes = changes.spec, changes.attributes or {}
        self.changed = tuple(self._keep(trial) for trial in changes.trials)
        for subscription in self._subscriptions:
            subscription.add(self.changed)
        self._mark = changes.mark
        return self.study

    def add(self, trials: Sequence[Trial]) -> None:
        """Take note of trials that were added to the study just now, as the store gave them: they are not read again.

        Those that are not the next ones are left to the next look.
        """
        if self._mark is None or not trials or trials[0].number != len(self._trials):
            return
        for trial in trials:
            self._keep(trial)
        for subscription in self._subscriptions:
            subscription.add(trials)
        known = {**self._mark.unfinished, **{trial.number: trial for trial in trials}}
        self._mark = replace(self._mark, n_trials=len(self._trials), unfinished=known)

    def subscribe(self) -> Subscription:
        """What changes from here on, for one of several that use the same follower; all trials so far to begin with."""
        subscription = Subscription(self)
        subscription.add(self._trials)
        self._subscriptions.append(subscription)
        return subscription

    @property
    def study(self) -> Study:
        """The study as it was at the last look.

        Raises:
            RuntimeError: If nobody has looked yet.
        """
        if self._spec is None:
            raise RuntimeError(f"study {self._name!r} was not looked at yet; call refresh() first.")
        return Study(spec=self._spec, trials=tuple(self._trials), attributes=self._attributes)

    @property
    def n_trials(self) -> int:
        """Number of trials at the last look."""
        return len(self._trials)

    def trial(self, number: int) -> Trial:
        """A trial as it was at the last look.

        Raises:
            IndexError: If there was none of that number.
        """
        return self._trials[number]

    def count(self, kinds: Collection[TrialKind] | None = None, *states: TrialState) -> int:
        """Number of trials of some kinds (None for all) in some states (none given for all), at the last look."""
        return sum(
            n
            for (kind, state), n in self._counts.items()
            if (kinds is None or kind in kinds) and (not states or state in states)
        )

    def n_finished(self, kinds: Collection[TrialKind] | None = None) -> int:
        """Number of finished trials of some kinds (None for all), at the last look."""
        return self.count(kinds, *(state for state in TrialState if state.is_finished))

    def unfinished(self, kinds: Collection[TrialKind] | None = None) -> tuple[Trial, ...]:
        """Trials that were waiting or running at the last look, by number."""
        return tuple(trial for _, trial in sorted(self._unfinished.items()) if kinds is None or trial.kind in kinds)

    def _keep(self, trial: Trial) -> Trial:
        number = trial.number
        if number < len(self._trials):
            known = self._trials[number]
            self._counts[known.kind, known.state] -= 1
            self._trials[number] = trial
        else:
            self._trials.append(trial)
        self._counts[trial.kind, trial.state] += 1
        if trial.state.is_finished:
            self._unfinished.pop(number, None)
        else:
            self._unfinished[number] = trial
        return trial
