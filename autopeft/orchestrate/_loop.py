"""The search: ask, execute, tell; then confirm. All state is in the store, so that any interruption can be resumed."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from autopeft.exceptions import InfeasibleError, TrialConflictError
from autopeft.orchestrate._baselines import Baseline
from autopeft.orchestrate._confirm import enqueue_confirmations, summarize
from autopeft.orchestrate._events import Progress
from autopeft.orchestrate._executor import Executor
from autopeft.orchestrate._prepare import PreparedSearch
from autopeft.orchestrate._warm_start import stored_warm_start
from autopeft.orchestrate._worker_id import is_dead
from autopeft.pruners import PRUNING_ATTRIBUTE, NoPruner, Pruner, pruning_report, to_continue
from autopeft.samplers import Sampler, make_sampler
from autopeft.store import TrialStore
from autopeft.study import Study, TrialDraft, TrialKind, TrialState

_MAX_ATTEMPTS = 3
_POLL_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a search ends with.

    Args:
        study: The study as stored.
        summary: See `autopeft.orchestrate.summarize`; None if the time limit left no search trial to summarize.
        stopped_early: Why fewer trials than asked for were run; None if all were.
    """

    study: Study
    summary: dict[str, Any] | None
    stopped_early: str | None


class SearchLoop:
    """Drives one study to its end.

    Several processes may drive the same study: each trial is claimed by one of them.

    Args:
        prepared: The resolved search.
        store: Where the study is.
        executor: Where trials run.
        progress: Told about everything.
        baselines: Baselines to run; empty to skip them.
        spent_s: Seconds of the time limit that are already used up.
        pruner: Of the study; None stops nothing.
    """

    def __init__(
        self,
        prepared: PreparedSearch,
        store: TrialStore,
        executor: Executor,
        progress: Progress,
        *,
        baselines: Collection[Baseline] = (),
        spent_s: float = 0.0,
        pruner: Pruner | None = None,
    ) -> None:
        self._prepared = prepared
        self._store = store
        self._executor = executor
        self._progress = progress
        self._baselines = baselines
        self._spent_s = spent_s
        self._pruner = pruner or NoPruner()
        self._n_reported = -1
        self._name = prepared.spec.name
        self._stopped_early: str | None = None
        self._is_out_of_time = False

    def run(self) -> SearchResult:
        """Run baselines, search trials and confirmations that are still missing, then summarize.

        Raises:
            InfeasibleError: If no search trial could be trained and measured, and not for want of time.
        """
        try:
            return self._run()
        except BaseException:
            self._executor.give_back(self._name)
            raise

    def _run(self) -> SearchResult:
        self.recover()
        self._enqueue_baselines()
        self._search()
        self._report_pruning(self._store.load_study(self._name))
        summary = self._confirm() if self._has_measured() else None
        return SearchResult(
            study=self._store.load_study(self._name), summary=summary, stopped_early=self._stopped_early
        )

    def _has_measured(self) -> bool:
        """Whether there is a search trial to confirm; False if the time limit came before the first.

        Raises:
            InfeasibleError: If there is none for any other reason.
        """
        searched = self._store.load_study(self._name).of_kind(TrialKind.SEARCH)
        if any(item.state is TrialState.COMPLETE for item in searched):
            return True
        failures = {item.failure.message for item in searched if item.failure is not None}
        if self._is_out_of_time and not failures:
            return False
        reasons = "; ".join(sorted(failures)) or self._stopped_early
        raise InfeasibleError(f"study {self._name}: no search trial was measured ({reasons}).")

    def _confirm(self) -> dict[str, Any]:
        settings = self._prepared.settings
        study = self._store.load_study(self._name)
        if enqueue_confirmations(self._store, study, top=settings.confirm_top, seeds=settings.seeds):
            self._progress.message("Confirming the front over seeds, scored on the report split ...")
        self._drain((TrialKind.CONFIRMATION,))
        summary = summarize(self._store.load_study(self._name), self._prepared.task)
        self._store.set_attribute(self._name, "summary", summary)
        return summary

    def recover(self) -> list[int]:
        """Put back the trials of workers that are gone: expired leases, and dead processes of this machine.

        Returns:
            Numbers of the trials put back or given up.
        """
        running = [item for item in self._store.load_study(self._name).trials if item.state is TrialState.RUNNING]
        dead = {item.worker for item in running if item.worker is not None and is_dead(item.worker)}
        return self._store.release_expired(self._name, max_attempts=_MAX_ATTEMPTS, dead_workers=dead)

    def _enqueue_baselines(self) -> None:
        spec = self._prepared.spec
        known = {item.draft.identity for item in self._store.load_study(self._name).trials}
        for item in self._baselines:
            draft = TrialDraft(
                kind=TrialKind.BASELINE,
                configuration=item.configuration,
                trainable_parameters=item.trainable_parameters,
                fidelity=spec.fidelity,
                seed=spec.seed,
                label=item.label,
            )
            if draft.identity in known:
                continue
            try:
                self._store.add_trial(self._name, draft)
            except TrialConflictError:
                continue  # another process of this search added it first

    def _search(self) -> None:
        settings = self._prepared.settings
        spec = self._prepared.spec
        begun = stored_warm_start(self._store.load_study(self._name))
        sampler = make_sampler(
            spec.sampler,
            space=self._prepared.space,
            objectives=spec.objectives,
            seed=spec.seed,
            fidelity=spec.fidelity,
            constraints=spec.constraints,
            earlier=() if begun is None else begun.sources,
        )
        kinds = (TrialKind.BASELINE, TrialKind.SEARCH)
        deadline = None if settings.time_s is None else time.monotonic() + settings.time_s - self._spent_s
        while True:
            study = self._store.load_study(self._name)
            searched = study.of_kind(TrialKind.SEARCH)
            waiting = [item for item in study.of_kind(*kinds) if item.state is TrialState.WAITING]
            missing = settings.trials - len(searched)
            if deadline is not None and time.monotonic() > deadline:
                n_finished = sum(item.state.is_finished for item in searched)
                if n_finished < settings.trials:
                    self._is_out_of_time = True
                    self._stopped_early = (
                        f"the time limit ended the search after {n_finished} of {settings.trials} search trials"
                    )
                return
            self._report_pruning(study)
            free = self._executor.slots - len(waiting)
            free -= self._continue(study, free)
            wanted = min(missing, free)
            if wanted > 0 and not self._ask(sampler, study, wanted):
                self._stopped_early = f"the search space is exhausted after {len(searched)} trials"
                self._drain(kinds)
                return
            if not self._executor.advance(self._name, kinds) and missing <= 0:
                self._drain(kinds)
                return

    def _continue(self, study: Study, n: int) -> int:
        """Put up to n stopped trials back that the pruner would not stop any more.

        Returns:
            How many are to go on.
        """
        chosen = to_continue(self._pruner, study.trials)[: max(n, 0)]
        for number in chosen:
            # Another process of this search may have continued it first.
            with suppress(TrialConflictError):
                self._store.continue_trial(self._name, number)
                self._progress.message(f"trial {number} goes on: with what is known now, it would not be stopped.")
        return len(chosen)

    def _report_pruning(self, study: Study) -> None:
        """Store what the rungs are worth, and what stopping has saved and cost, whenever a trial has ended."""
        n_finished = sum(item.state.is_finished for item in study.of_kind(TrialKind.SEARCH))
        if not self._pruner.rungs or n_finished == self._n_reported:
            return
        self._n_reported = n_finished
        n_steps = self._prepared.training.n_steps(study.spec.fidelity)
        report = pruning_report(study, rungs=self._pruner.rungs, n_steps=n_steps)
        self._store.set_attribute(self._name, PRUNING_ATTRIBUTE, report)

    def _ask(self, sampler: Sampler, study: Study, n: int) -> bool:
        """Enqueue up to n suggestions.

        Returns:
            False if the space has nothing left to suggest.
        """
        suggestions = sampler.ask(study.trials, n)
        number = len(study.trials)
        space = self._prepared.space
        for offset, suggestion in enumerate(suggestions):
            configuration = space.compile(suggestion.params)
            draft = TrialDraft(
                kind=TrialKind.SEARCH,
                configuration=configuration,
                trainable_parameters=space.parameter_count(configuration),
                fidelity=study.spec.fidelity,
                seed=study.spec.seed,
                params=suggestion.params,
            )
            try:
                self._store.add_trial(self._name, draft, number=number + offset)
                self._store.set_note(self._name, number + offset, "suggestion", dict(suggestion.notes))
            except TrialConflictError:
                # Another process added a trial meanwhile: what it knew, the next suggestion must know too.
                return True
        return bool(suggestions)

    def _drain(self, kinds: Collection[TrialKind]) -> None:
        """Run or await every trial of these kinds."""
        while True:
            if self._executor.advance(self._name, kinds):
                continue
            study = self._store.load_study(self._name)
            if all(item.state.is_finished for item in study.of_kind(*kinds)):
                return
            self.recover()
            time.sleep(_POLL_S)
