"""The search: ask, execute, tell; then confirm. All state is in the store, so that any interruption can be resumed."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from autopeft.exceptions import DriverConflictError, InfeasibleError, TrialConflictError
from autopeft.orchestrate._baselines import Baseline
from autopeft.orchestrate._confirm import enqueue_confirmations, summarize
from autopeft.orchestrate._driver import DriverSeat
from autopeft.orchestrate._events import Progress
from autopeft.orchestrate._executor import PLACEMENT_NOTE, Executor
from autopeft.orchestrate._garbage import LastingTrials
from autopeft.orchestrate._prepare import PreparedSearch
from autopeft.orchestrate._recover import recover
from autopeft.orchestrate._warm_start import stored_warm_start
from autopeft.pruners import PRUNING_ATTRIBUTE, NoPruner, Pruner, pruning_report, to_continue
from autopeft.samplers import Sampler, Suggestion, make_sampler
from autopeft.store import LOCAL_EXECUTOR, StudyFollower, TrialStore
from autopeft.study import Study, TrialDraft, TrialKind, TrialState

_POLL_S = 0.5
#: Workers that wait get what was asked for before all that they want is.
_MOST_AT_ONCE = 250
#: What is worked out from all trials is worked out anew when so large a share of them has ended since.
_STALE_SHARE = 1 / 200
#: Attribute of the study with what the sampler's newest model predicts of each trial without it: `Suggestion.left_out`.
LEFT_OUT_ATTRIBUTE = "leave_one_out"


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

    One process drives a study at a time. Another one follows along and takes over when the first one ends or is lost;
    one that was lost for too long, and that another one took over from, follows along in its turn.

    Args:
        prepared: The resolved search.
        store: Where the study is.
        executor: Where trials run.
        progress: Told about everything.
        baselines: Baselines to run; empty to skip them.
        spent_s: Seconds of the time limit that are already used up.
        pruner: Of the study; None stops nothing.
        seat: The right to drive the study, if the caller has it already; it is released at the end.
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
        seat: DriverSeat | None = None,
    ) -> None:
        self._prepared = prepared
        self._store = store
        self._executor = executor
        self._progress = progress
        self._baselines = baselines
        self._spent_s = spent_s
        self._pruner = pruner or NoPruner()
        self._n_reported = -1
        self._n_reconsidered = -1
        self._n_left_out = -1
        self._lasting = LastingTrials(is_on=executor.name != LOCAL_EXECUTOR)
        self._name = prepared.spec.name
        self._seat = seat or DriverSeat(store, self._name, executor=executor.name, progress=progress)
        # Only a pruner looks at the curves of running trials.
        self._follower = StudyFollower(store, self._name, running=bool(self._pruner.rungs))
        executor.follow(self._name, self._follower)
        self._deadline: float | None = None
        self._stopped_early: str | None = None
        self._is_out_of_time = False

    def run(self) -> SearchResult:
        """Run baselines, search trials and confirmations that are still missing, then summarize.

        Raises:
            InfeasibleError: If no search trial could be trained and measured, and not for want of time.
        """
        try:
            while True:
                self._seat.wait()
                try:
                    return self._run()
                except DriverConflictError as error:
                    self._executor.give_back(self._name)
                    self._progress.message(f"{error} This process stops driving it.")
        except BaseException:
            self._executor.give_back(self._name)
            raise
        finally:
            self._lasting.end()
            self._seat.release()

    def _run(self) -> SearchResult:
        self.recover()
        self._follower.refresh()
        self._enqueue_baselines()
        self._search()
        self._report_pruning(self._follower.refresh(), is_last=True)
        summary = self._confirm() if self._has_measured() else None
        outline = self._store.load_outline(self._name)
        study = Study(spec=outline.spec, trials=self._follower.refresh().trials, attributes=outline.attributes)
        return SearchResult(study=study, summary=summary, stopped_early=self._stopped_early)

    def _has_measured(self) -> bool:
        """Whether there is a search trial to confirm; False if the time limit came before the first.

        Raises:
            InfeasibleError: If there is none for any other reason.
        """
        searched = self._follower.study.of_kind(TrialKind.SEARCH)
        if any(item.state is TrialState.COMPLETE for item in searched):
            return True
        failures = {item.failure.message for item in searched if item.failure is not None}
        if self._is_out_of_time and not failures:
            return False
        reasons = "; ".join(sorted(failures)) or self._stopped_early
        raise InfeasibleError(f"study {self._name}: no search trial was measured ({reasons}).")

    def _confirm(self) -> dict[str, Any]:
        settings = self._prepared.settings
        study = self._follower.study
        if enqueue_confirmations(self._store, study, top=settings.confirm_top, seeds=settings.seeds):
            self._progress.message("Confirming the front over seeds, scored on the report split ...")
        self._drain((TrialKind.CONFIRMATION,))
        summary = summarize(self._follower.refresh(), self._prepared.task)
        self._store.set_attribute(self._name, "summary", summary)
        return summary

    def recover(self) -> list[int]:
        """Put back the trials of workers that are gone: expired leases, and dead processes of this machine.

        Returns:
            Numbers of the trials put back or given up.
        """
        return recover(self._store, self._name)

    def _enqueue_baselines(self) -> None:
        spec = self._prepared.spec
        known = {item.draft.identity for item in self._follower.study.trials}
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
        begun = stored_warm_start(self._follower.refresh())
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
        if settings.time_s is not None and self._deadline is None:
            self._deadline = time.monotonic() + settings.time_s - self._spent_s
        while True:
            self._seat.check()
            study = self._follower.refresh()
            self._lasting.settle(len(study.trials))
            missing = settings.trials - self._follower.count([TrialKind.SEARCH])
            if self._is_late():
                n_finished = self._follower.n_finished([TrialKind.SEARCH])
                if n_finished < settings.trials:
                    self._is_out_of_time = True
                    self._stopped_early = (
                        f"the time limit ended the search after {n_finished} of {settings.trials} search trials"
                    )
                return
            self._report_pruning(study)
            free = self._executor.slots - self._follower.count(kinds, TrialState.WAITING)
            free -= self._continue(study, free)
            wanted = min(missing, free)
            if wanted > 0 and not self._ask(sampler, wanted):
                n_searched = self._follower.count([TrialKind.SEARCH])
                self._stopped_early = f"the search space is exhausted after {n_searched} trials"
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
        n_finished = self._follower.n_finished()
        if n <= 0 or not self._pruner.rungs or not _is_due(n_finished, self._n_reconsidered):
            return 0
        self._n_reconsidered = n_finished
        chosen = to_continue(self._pruner, study.trials)[:n]
        for number in chosen:
            # Another process of this search may have continued it first.
            with suppress(TrialConflictError):
                self._store.continue_trial(self._name, number)
                self._progress.message(f"trial {number} goes on: with what is known now, it would not be stopped.")
        return len(chosen)

    def _report_pruning(self, study: Study, *, is_last: bool = False) -> None:
        """Store what the rungs are worth, and what stopping has saved and cost, as trials end."""
        n_finished = self._follower.n_finished([TrialKind.SEARCH])
        is_due = is_last or _is_due(n_finished, self._n_reported)
        if not self._pruner.rungs or n_finished == self._n_reported or not is_due:
            return
        self._n_reported = n_finished
        n_steps = self._prepared.training.n_steps(study.spec.fidelity)
        report = pruning_report(study, rungs=self._pruner.rungs, n_steps=n_steps)
        self._store.set_attribute(self._name, PRUNING_ATTRIBUTE, report)

    def _ask(self, sampler: Sampler, n: int) -> bool:
        """Enqueue up to n suggestions, in parts, so that workers that wait get the first ones soon.

        Returns:
            False if the space has nothing left to suggest.
        """
        while n > 0:
            n_before = self._follower.n_trials
            if not self._enqueue(sampler, self._follower.study, min(n, _MOST_AT_ONCE)):
                return False
            n_added = self._follower.n_trials - n_before
            if not n_added or self._is_late():
                return True
            n -= n_added
            self._seat.check()
        return True

    def _is_late(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline

    def _enqueue(self, sampler: Sampler, study: Study, n: int) -> bool:
        """Enqueue up to n suggestions at once; none if another process added trials that this one has not seen.

        Returns:
            False if the space has nothing left to suggest.
        """
        suggestions = sampler.ask(study.trials, n)
        space = self._prepared.space
        drafts = []
        for suggestion in suggestions:
            configuration = space.compile(suggestion.params)
            drafts.append(
                TrialDraft(
                    kind=TrialKind.SEARCH,
                    configuration=configuration,
                    trainable_parameters=space.parameter_count(configuration),
                    fidelity=study.spec.fidelity,
                    seed=study.spec.seed,
                    params=suggestion.params,
                )
            )
        notes = [
            {"suggestion": dict(item.notes), PLACEMENT_NOTE: space.placement_counts(draft.configuration)}
            for item, draft in zip(suggestions, drafts, strict=True)
        ]
        # If another process added a trial meanwhile, what it knew, the next suggestion must know too.
        with suppress(TrialConflictError):
            added = self._store.add_trials(self._name, drafts, number=len(study.trials), notes=notes)
            self._follower.add(added)
            self._keep_left_out(suggestions)
        return bool(suggestions)

    def _keep_left_out(self, suggestions: Sequence[Suggestion]) -> None:
        """Store what the model of these suggestions predicts of each trial without it, in place of an older model's."""
        left_out = suggestions[0].left_out if suggestions else None
        if left_out is None or not _is_due(left_out["n_search"], self._n_left_out):
            return
        self._n_left_out = left_out["n_search"]
        self._store.set_attribute(self._name, LEFT_OUT_ATTRIBUTE, dict(left_out))

    def _drain(self, kinds: Collection[TrialKind]) -> None:
        """Run or await every trial of these kinds."""
        while True:
            self._seat.check()
            if self._executor.advance(self._name, kinds):
                continue
            self._follower.refresh()
            if not self._follower.unfinished(kinds):
                return
            self.recover()
            time.sleep(_POLL_S)


def _is_due(n_finished: int, n_before: int) -> bool:
    """Whether what takes time to work out for all trials is to be worked out again.

    It depends on the number of trials alone, so that a search that was interrupted goes on as if it had not been.
    """
    step = max(1, int(n_finished * _STALE_SHARE))
    return n_finished // step != n_before // step or n_finished % step == 0
