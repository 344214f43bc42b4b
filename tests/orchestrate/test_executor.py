from __future__ import annotations

from collections.abc import Sequence

import pytest

from autopeft.orchestrate import LocalExecutor, SilentProgress
from autopeft.orchestrate._worker_id import worker_id
from autopeft.store import MemoryStore
from autopeft.study import TrialKind, TrialState
from autopeft.training import Job
from tests.configuration.examples import bert_shapes
from tests.orchestrate.toys import ToyRunner
from tests.study.builders import make_draft, make_spec

KINDS = (TrialKind.SEARCH, TrialKind.BASELINE)


def make_store(*ranks: int, **changes: object) -> MemoryStore:
    store = MemoryStore()
    store.create_study(make_spec())
    for rank in ranks:
        store.add_trial("study", make_draft(rank=rank, **changes))  # type: ignore[arg-type]
    return store


def make_executor(store: MemoryStore, runner: ToyRunner, *, cohort: int = 1) -> LocalExecutor:
    return LocalExecutor(store, runner, SilentProgress(), cohort=cohort)  # type: ignore[arg-type]


def test_a_trial_is_claimed_trained_and_written_with_its_curve() -> None:
    store = make_store(1, 2)
    executor = make_executor(store, ToyRunner())
    assert executor.advance("study", KINDS)
    first, second = store.load_study("study").trials
    assert (first.state, second.state) == (TrialState.COMPLETE, TrialState.WAITING)
    assert first.worker == worker_id()
    assert first.attempts == 1
    assert len(first.curve) == 1
    assert executor.advance("study", KINDS)
    assert not executor.advance("study", KINDS)


def test_what_each_placement_trains_is_noted() -> None:
    """Oracle: LoRA's closed form on one square linear map: r rows in and out."""
    store = make_store(3)
    make_executor(store, ToyRunner()).advance("study", KINDS)
    linear = bert_shapes().layers[0].linears["q"]
    expected = [3 * (linear.in_features + linear.out_features)]
    assert store.load_study("study").trials[0].notes["placement_parameters"] == expected


def test_confirmations_are_scored_on_the_report_split_too() -> None:
    store = make_store(1)
    make_executor(store, ToyRunner()).advance("study", KINDS)
    store.add_trial("study", make_draft(seed=1, kind=TrialKind.CONFIRMATION, parent=0))
    runner = ToyRunner()
    assert not make_executor(store, runner).advance("study", KINDS)
    assert make_executor(store, runner).advance("study", (TrialKind.CONFIRMATION,))
    assert runner.jobs[0].splits == ("search", "report")
    trial = store.load_study("study").trials[1]
    assert {item.split for item in trial.measurements} == {"search", "report"}


def test_an_interrupted_trial_is_given_back_without_costing_an_attempt() -> None:
    store = make_store(1)

    def interrupt(jobs: Sequence[Job]) -> None:
        raise KeyboardInterrupt

    executor = make_executor(store, ToyRunner(hook=interrupt))
    with pytest.raises(KeyboardInterrupt):
        executor.advance("study", KINDS)
    executor.give_back("study")
    trial = store.load_study("study").trials[0]
    assert (trial.state, trial.attempts) == (TrialState.WAITING, 0)


def test_a_result_is_not_kept_when_another_worker_took_the_trial_over() -> None:
    store = make_store(1)

    def lose(jobs: Sequence[Job]) -> None:
        store.release_expired("study", dead_workers=[worker_id()])
        store.claim_trial("study", "elsewhere:1:1", lease_s=60)

    make_executor(store, ToyRunner(hook=lose)).advance("study", KINDS)
    trial = store.load_study("study").trials[0]
    assert (trial.state, trial.worker, trial.measurements) == (TrialState.RUNNING, "elsewhere:1:1", ())


def test_a_cohort_takes_what_is_there() -> None:
    store = make_store(1, 2, 3)
    batches: list[int] = []
    executor = make_executor(store, ToyRunner(hook=lambda jobs: batches.append(len(jobs))), cohort=8)
    assert executor.slots == 8
    executor.advance("study", KINDS)
    assert batches == [3]
