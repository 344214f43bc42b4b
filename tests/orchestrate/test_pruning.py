"""Searches that stop trials early: with toys, and with a real backbone that is killed on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from autopeft.orchestrate import LocalExecutor, SearchLoop, SilentProgress, prepare, run_search
from autopeft.pruners import PRUNING_ATTRIBUTE, PRUNING_NOTE, Decision, Pruner, Reason, make_pruner, to_continue
from autopeft.store import MemoryStore, SqlStore
from autopeft.study import Study, Trial, TrialKind, TrialState, search_front
from autopeft.training import Job, TrainingSettings
from autopeft.training._checkpoints import CheckpointFolder
from autopeft.training._cohort import Cohort
from tests.orchestrate.test_search import settings_in
from tests.orchestrate.toys import ToyRunner, prepared_search


class Told(SilentProgress):
    def __init__(self) -> None:
        self.pruned: list[tuple[int, str]] = []
        self.messages: list[str] = []

    def trial_pruned(self, trial: Trial, why: str) -> None:
        self.pruned.append((trial.number, why))

    def message(self, text: str) -> None:
        self.messages.append(text)


class Impatient:
    """Stops two in three trials at one rung or the other until so many are complete, and then nobody."""

    name = "impatient"

    def __init__(self, rungs: Sequence[int], patience: int) -> None:
        self.rungs = tuple(rungs)
        self._patience = patience

    def decide(self, trials: Sequence[Trial], numbers: Sequence[int]) -> list[Decision]:
        n_complete = sum(item.state is TrialState.COMPLETE for item in trials)
        found = []
        for number in numbers:
            step = next(item for item in trials if item.number == number).curve[-1].step
            stop = n_complete < self._patience and number % 3 > 0 and step == self.rungs[number % 3 - 1]
            found.append(Decision(stop=stop, reason=Reason.RULE, why=f"{n_complete} are complete", step=step))
        return found


def toy_loop(store: MemoryStore, runner: ToyRunner, told: Told, *, name: str = "pareto", cohort: int = 1, **changes):
    prepared = prepared_search(**{"trials": 30, "confirm_top": 2, **changes})
    training = replace(prepared.training, rungs=(1 / 9, 1 / 3))
    spec = replace(prepared.spec, pruner=name, training=training.to_dict())
    prepared = replace(prepared, spec=spec, training=training)
    n_steps = training.n_steps(spec.fidelity)
    runner._rungs, runner._n_steps = training.rung_steps(spec.fidelity), n_steps
    pruner: Pruner = Impatient(runner._rungs, 8)
    if name != "impatient":
        pruner = make_pruner(name, objectives=spec.objectives, fidelity=spec.fidelity, rungs=runner._rungs)
    store.ensure_study(spec)
    executor = LocalExecutor(store, runner, told, cohort=cohort, pruner=pruner)  # type: ignore[arg-type]
    return SearchLoop(prepared, store, executor, told, pruner=pruner)


@pytest.mark.parametrize("name", ["pareto", "median", "mo_asha"])
@pytest.mark.parametrize("cohort", [1, 3])
def test_stopped_trials_are_pruned_told_and_never_on_the_front(
    name: str, cohort: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autopeft.orchestrate._loop.summarize", lambda *_: {})
    told, store = Told(), MemoryStore()
    study = toy_loop(store, ToyRunner(), told, name=name, cohort=cohort).run().study
    pruned = study.of_kind(TrialKind.SEARCH, state=TrialState.PRUNED)
    assert pruned
    assert {item.number for item in pruned} <= {number for number, _ in told.pruned}
    assert all(why for _, why in told.pruned)
    for trial in pruned:
        assert trial.rung is not None
        assert trial.rung.step == trial.curve[-1].step
        assert trial.notes[PRUNING_NOTE]["decisions"][-1]["stop"]  # type: ignore[index]
        assert trial.value("accuracy") == trial.curve[-1].metrics["accuracy"]
    front = search_front(study).trials
    assert not {item.number for item in front} & {item.number for item in pruned}
    confirmed = study.of_kind(TrialKind.CONFIRMATION)
    assert {item.state for item in confirmed} == {TrialState.COMPLETE}
    assert {item.draft.parent for item in confirmed} <= {item.number for item in front}
    assert len(study.of_kind(TrialKind.SEARCH)) == 30
    report = study.attributes[PRUNING_ATTRIBUTE]
    assert report["n_pruned"] == len(pruned)
    assert report["steps_saved"] == sum(report["n_steps"] - item.curve[-1].step for item in pruned)
    assert not to_continue(make_pruner(name, objectives=study.spec.objectives, fidelity=study.spec.fidelity,
                                       rungs=report["rungs"]), study.trials)  # fmt: skip


def test_stopped_trials_are_continued_with_what_came_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autopeft.orchestrate._loop.summarize", lambda *_: {})
    told, store = Told(), MemoryStore()
    study = toy_loop(store, ToyRunner(), told, name="impatient").run().study
    assert any("goes on: with what is known now" in text for text in told.messages)
    continued = [item for item in study.trials if item.state is TrialState.COMPLETE and len(item.measurements) > 1
                 and any(found.rung for found in item.measurements)]  # fmt: skip
    assert study.attributes[PRUNING_ATTRIBUTE]["n_continued"] == len(continued) > 0
    assert {item.state for item in study.trials} == {TrialState.COMPLETE}
    for trial in continued:
        assert trial.measurement().rung is None  # type: ignore[union-attr]
        steps = [point.step for point in trial.curve]
        assert steps == [1, 3, 7]  # its points are whole, though the runner computed the first ones in an earlier claim


def numbers(study: Study) -> list[tuple[object, ...]]:
    """All that must repeat."""
    return [
        (item.draft, item.state, item.rung, [dict(found.metrics) for found in item.measurements],
         [(point.step, dict(point.metrics)) for point in item.curve], item.notes.get(PRUNING_NOTE))
        for item in study.trials
    ]  # fmt: skip


REAL = {
    "fidelity": "auto", "trials": 14, "confirm_top": 0, "baselines": False, "sampler": "random", "epochs": 2,
    "train_examples": 72, "batch_size": 8,
}  # fmt: skip


class Killed(BaseException):
    """The process is gone: nobody gives anything back."""


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Toys train faster than any file is written."""
    monkeypatch.setattr(CheckpointFolder, "is_worth", lambda *_: True)
    monkeypatch.setattr("autopeft.training._checkpoints._ASSUMED_RATE", 1e30)


@pytest.mark.slow
@pytest.mark.parametrize("patience", [4, 99])
def test_a_killed_search_with_a_pruner_ends_like_one_that_was_not(
    patience: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: None
) -> None:
    """Oracle: the undisturbed search. Killed in the middle of trials, some steps after a rung."""
    settings = settings_in(tmp_path, **{**REAL, "study": "s"})
    monkeypatch.setattr(
        "autopeft.orchestrate._search.study_pruner",
        lambda spec, _: Impatient(TrainingSettings(**spec.training).rung_steps(spec.fidelity), patience),
    )

    def search(store: SqlStore, cache: str) -> Study:
        return run_search(
            prepare(settings), store, SilentProgress(), cache_dir=tmp_path / cache, store_url=store.url
        ).study

    with SqlStore(tmp_path / "whole.db") as store:
        whole = search(store, "one")
    stopped = [item for item in whole.trials if any(found.rung for found in item.measurements)]
    assert len(stopped) > 5
    assert {item.state for item in stopped} == {TrialState.COMPLETE if patience == 4 else TrialState.PRUNED}

    step, resumed = Cohort.step, []
    reached: dict[int, list[str]] = {8: [], 14: []}
    monkeypatch.setattr(LocalExecutor, "give_back", lambda *_: None)
    monkeypatch.setattr("autopeft.orchestrate._recover.is_dead", lambda _: True)

    def killing(self: Cohort, number: int, *arguments: object) -> None:
        job = self.candidates[0].job
        if number in reached and job.fidelity == whole.spec.fidelity:
            reached[number].append(job.configuration.fingerprint)
            if len(reached[number]) % 4 == 2 and reached[number].count(job.configuration.fingerprint) == 1:
                raise Killed
        step(self, number, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Cohort, "step", killing)
    restore = Cohort.restore
    monkeypatch.setattr(Cohort, "restore", lambda self, found: (resumed.append(found[0].step), restore(self, found)))
    n_kills = 0
    with SqlStore(tmp_path / "killed.db") as store:
        while True:
            try:
                killed = search(store, "two")
            except Killed:
                n_kills += 1
            else:
                break
    assert n_kills > 2
    assert len(resumed) >= n_kills
    assert numbers(killed) == numbers(whole)
    left = list((tmp_path / "two" / "checkpoints").iterdir())
    assert len(left) <= len(killed.of_kind(TrialKind.SEARCH, state=TrialState.PRUNED))


@pytest.mark.slow
def test_more_trials_go_on_where_a_search_with_a_pruner_ended(tmp_path: Path, kept: None) -> None:
    """Oracle: the search that had as many from the start."""
    found = []
    for counts in ((14,), (9, 14)):
        store = MemoryStore()
        for n in counts:
            prepared = prepare(settings_in(tmp_path, **{**REAL, "trials": n, "study": "s"}))
            result = run_search(
                prepared, store, SilentProgress(), cache_dir=tmp_path / str(len(counts)), store_url="memory"
            )
        found.append({item.draft.identity for item in result.study.trials})
    assert found[0] == found[1]


def test_a_search_at_low_fidelity_confirms_in_full(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, fidelity="25%", trials=2, sampler="random", baselines=False)
    result = run_search(prepare(settings), MemoryStore(), SilentProgress(), cache_dir=tmp_path, store_url="memory")
    examples = {item.kind: item.draft.fidelity.train_examples for item in result.study.trials}
    assert examples == {TrialKind.SEARCH: 16, TrialKind.CONFIRMATION: 64}


def test_jobs_of_stopped_trials_are_those_that_were_asked_for() -> None:
    jobs: list[Sequence[Job]] = []
    runner = ToyRunner(hook=jobs.append)
    store = MemoryStore()
    loop = toy_loop(store, runner, Told(), trials=8, confirm_top=0)
    loop._search()
    assert [len(item) for item in jobs] == [1] * 8
