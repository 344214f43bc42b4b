from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from autopeft.exceptions import InfeasibleError
from autopeft.modules import MODULES
from autopeft.orchestrate import LocalExecutor, Progress, SearchLoop, SearchResult, SilentProgress, baselines
from autopeft.orchestrate._driver import DriverSeat
from autopeft.orchestrate._loop import LEFT_OUT_ATTRIBUTE, _is_due
from autopeft.orchestrate._worker_id import worker_id
from autopeft.samplers import Suggestion, make_sampler
from autopeft.samplers._encoding import Encoder
from autopeft.store import MemoryStore, StudyChanges, StudyMark, TrialStore, open_store
from autopeft.study import Study, Trial, TrialKind, TrialState
from autopeft.training import Job
from tests.configuration.examples import bert_shapes
from tests.orchestrate.toys import ToyRunner, prepared_search


def make_loop(
    store: TrialStore,
    runner: ToyRunner,
    progress: Progress | None = None,
    *,
    cohort: int = 1,
    with_baselines: bool = False,
    seat: DriverSeat | None = None,
    **changes: object,
):
    prepared = prepared_search(**changes)
    store.ensure_study(prepared.spec)
    progress = progress or SilentProgress()
    executor = LocalExecutor(store, runner, progress, cohort=cohort)  # type: ignore[arg-type]
    planned = list(baselines(bert_shapes(), MODULES, 227_132, memory_bytes=0)) if with_baselines else []
    return SearchLoop(prepared, store, executor, progress, baselines=planned, seat=seat)


def counts(store: TrialStore) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for item in store.load_study("toy-study").trials:
        key = (item.kind.value, item.state.value)
        found[key] = found.get(key, 0) + 1
    return found


def test_a_search_runs_baselines_trials_and_confirmations() -> None:
    store, runner = MemoryStore(), ToyRunner()
    result = make_loop(store, runner, with_baselines=True).run()
    found = counts(store)
    assert found["search", "COMPLETE"] == 6
    assert found["baseline", "COMPLETE"] >= 8
    confirmed = {item.draft.parent for item in result.study.of_kind(TrialKind.CONFIRMATION)}
    assert found["confirmation", "COMPLETE"] == 2 * len(confirmed)
    assert result.summary["recommended"] is not None
    assert result.summary["best_baseline"] in confirmed
    assert result.summary["difference"]["n_seeds"] == 2
    assert result.stopped_early is None


def test_the_same_search_again_trains_nothing_and_more_trials_extend_it() -> None:
    store, first, again, more = MemoryStore(), ToyRunner(), ToyRunner(), ToyRunner()
    make_loop(store, first, confirm_top=0).run()
    make_loop(store, again, confirm_top=0).run()
    assert again.jobs == []
    make_loop(store, more, confirm_top=0, trials=9).run()
    assert counts(store) == {("search", "COMPLETE"): 9}
    assert len(more.jobs) == 3


def test_every_search_trial_says_where_it_came_from() -> None:
    store = MemoryStore()
    make_loop(store, ToyRunner(), confirm_top=0, with_baselines=True).run()
    study = store.load_study("toy-study")
    assert [item.notes["suggestion"] for item in study.of_kind(TrialKind.SEARCH)] == [{"source": "random"}] * 6
    assert not any("suggestion" in item.notes for item in study.of_kind(TrialKind.BASELINE))


def test_what_is_proposed_is_what_is_evaluated() -> None:
    """The encoding that was scored is that of the stored trial, and of the configuration that the runner trained."""
    store, runner = MemoryStore(), ToyRunner()
    loop = make_loop(store, runner, confirm_top=0, sampler="bayesian", trials=12, cohort=2)
    encoder = Encoder(loop._prepared.space)
    study = loop.run().study
    trained = {job.configuration.fingerprint: job.configuration for job in runner.jobs}
    sources = []
    for item in study.of_kind(TrialKind.SEARCH):
        noted = item.notes["suggestion"]
        sources.append(noted["source"])
        assert noted["encoding"] == pytest.approx(encoder.encode([_Configured(item)])[0].tolist(), abs=1e-6)
        assert trained[item.configuration.fingerprint] == item.configuration
        assert loop._prepared.space.compile(item.draft.params) == item.configuration
    assert sources == ["initial"] * 8 + ["model"] * 4
    assert noted["leave_one_out"]["accuracy"]["n"] >= 8
    assert noted["predicted"]["accuracy"]["low"] < noted["predicted"]["accuracy"]["high"]


def test_the_study_keeps_what_the_newest_model_predicts_of_each_trial_without_it() -> None:
    """One value, that of the last suggestion's model: it knew all trials before; oracle: the sampler, asked again."""
    store = MemoryStore()
    loop = make_loop(store, ToyRunner(), confirm_top=0, sampler="bayesian", trials=12)
    study = loop.run().study
    found = study.attributes[LEFT_OUT_ATTRIBUTE]
    spec, prepared = loop._prepared.spec, loop._prepared
    again = make_sampler(
        "bayesian", space=prepared.space, objectives=spec.objectives, seed=spec.seed, fidelity=spec.fidelity
    )
    assert found == again.ask(study.trials[:11], 1)[0].left_out
    assert found["n_search"] == 11
    assert found["numbers"] == list(range(11))
    assert found["objectives"]["accuracy"]["observed"] == pytest.approx(
        [item.value("accuracy") for item in study.trials[:11]], rel=1e-5
    )


def test_of_a_long_study_models_are_kept_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model of the first 400 trials; from then on one whenever so many have come that its share is not small."""
    store = MemoryStore()
    loop = make_loop(store, ToyRunner())
    kept = []
    monkeypatch.setattr(store, "set_attribute", lambda name, key, value: kept.append(value["n_search"]))
    for n in [*range(395, 405), 1001, 1003, 1004, 1005, 1011]:
        loop._keep_left_out([Suggestion(params={}, left_out={"n_search": n})])
    loop._keep_left_out([Suggestion(params={})])
    loop._keep_left_out([])
    assert kept == [*range(395, 401), 402, 404, 1001, 1005, 1011]


class _Configured:
    def __init__(self, trial: Trial) -> None:
        self.configuration = trial.configuration
        self.trainable_parameters = trial.draft.trainable_parameters


def test_two_runs_give_the_same_trials_and_numbers() -> None:
    def run() -> list[object]:
        store = MemoryStore()
        study = make_loop(store, ToyRunner()).run().study
        return [(item.draft, item.value("accuracy")) for item in study.trials]

    assert run() == run()


def test_an_interrupted_search_ends_like_an_uninterrupted_one() -> None:
    """Oracle: the same search without the interruption."""
    whole = MemoryStore()
    expected = make_loop(whole, ToyRunner()).run().study
    broken = MemoryStore()
    calls = 0

    def interrupt(jobs: Sequence[Job]) -> None:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            raise KeyboardInterrupt

    for _ in range(20):
        try:
            study = make_loop(broken, ToyRunner(hook=interrupt)).run().study
            break
        except KeyboardInterrupt:
            states = {item.state for item in broken.load_study("toy-study").trials}
            assert TrialState.RUNNING not in states
    assert [item.draft for item in study.trials] == [item.draft for item in expected.trials]
    assert [item.value("accuracy") for item in study.trials] == [item.value("accuracy") for item in expected.trials]


def test_a_failed_trial_is_recorded_and_the_search_goes_on() -> None:
    store = MemoryStore()
    seen: list[str] = []

    def fails(job: Job) -> bool:
        if job.configuration.fingerprint not in seen:
            seen.append(job.configuration.fingerprint)
        return seen.index(job.configuration.fingerprint) == 2

    make_loop(store, ToyRunner(fails=fails), confirm_top=0).run()
    assert counts(store) == {("search", "COMPLETE"): 5, ("search", "FAILED"): 1}
    failed = store.load_study("toy-study").of_kind(TrialKind.SEARCH, state=TrialState.FAILED)[0]
    assert failed.failure is not None
    assert failed.failure.reason == "divergence"
    assert failed.value("accuracy") is None


def test_when_every_trial_fails_the_error_says_why() -> None:
    with pytest.raises(InfeasibleError, match="training loss became nan"):
        make_loop(MemoryStore(), ToyRunner(fails=lambda job: True)).run()


def test_a_cohort_is_asked_for_and_trained_together() -> None:
    store = MemoryStore()
    batches: list[int] = []
    runner = ToyRunner(hook=lambda jobs: batches.append(len(jobs)))
    make_loop(store, runner, cohort=4, confirm_top=0, trials=8).run()
    assert counts(store) == {("search", "COMPLETE"): 8}
    assert max(batches) == 4


def test_trials_of_a_dead_process_are_put_back_and_run_again() -> None:
    store = MemoryStore()
    loop = make_loop(store, ToyRunner(), confirm_top=0)
    loop.run()
    from tests.study.builders import make_draft

    lost = store.add_trial("toy-study", make_draft())
    place = worker_id().rsplit(":", 2)[0]
    store.claim_trial("toy-study", f"{place}:1:0", lease_s=3600)
    assert loop.recover() == [lost.number]
    assert store.load_study("toy-study").trials[lost.number].state is TrialState.WAITING


def test_the_time_limit_stops_asking() -> None:
    store = MemoryStore()
    runner = ToyRunner(hook=lambda jobs: threading.Event().wait(0.2))
    result = make_loop(store, runner, confirm_top=0, trials=1000, time_s=0.5).run()
    assert 1 <= counts(store)["search", "COMPLETE"] < 10
    assert result.stopped_early is not None
    assert "time limit" in result.stopped_early


def test_time_that_ends_before_the_first_search_trial_is_no_error_and_goes_on_later() -> None:
    store = MemoryStore()
    result = make_loop(store, ToyRunner(), confirm_top=0, time_s=1e-9, with_baselines=True).run()
    assert result.summary is None
    assert result.stopped_early == "the time limit ended the search after 0 of 6 search trials"
    assert {item.state for item in result.study.trials} == {TrialState.WAITING}
    make_loop(store, ToyRunner(), confirm_top=0, with_baselines=True).run()
    assert counts(store)["search", "COMPLETE"] == 6


def test_a_trial_that_the_time_limit_left_waiting_is_stopped_early_too() -> None:
    def interrupt(jobs: Sequence[Job]) -> None:
        raise KeyboardInterrupt

    store = MemoryStore()
    with pytest.raises(KeyboardInterrupt):
        make_loop(store, ToyRunner(hook=interrupt), trials=1).run()
    result = make_loop(store, ToyRunner(), confirm_top=0, trials=1, time_s=1e-9).run()
    assert (result.summary, counts(store)) == (None, {("search", "WAITING"): 1})


def test_failures_are_told_even_when_time_ends_first() -> None:
    runner = ToyRunner(fails=lambda job: True, hook=lambda jobs: threading.Event().wait(0.3))
    with pytest.raises(InfeasibleError, match="training loss became nan"):
        make_loop(MemoryStore(), runner, trials=1000, time_s=0.2).run()


class Said(SilentProgress):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.finished: list[int] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def trial_finished(self, trial: Trial, best: Trial | None) -> None:
        self.finished.append(trial.number)


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def run_all(loops: Sequence[SearchLoop]) -> list[SearchResult]:
    """Run several drivers at once; the first error, if there is one, is raised."""
    with ThreadPoolExecutor(len(loops)) as pool:
        return list(pool.map(SearchLoop.run, loops))


def test_of_two_drivers_one_drives_and_the_other_follows_and_no_trial_runs_twice(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    told = [Said(), Said()]
    # Nothing is trained before the other one has seen that it is the second.
    runners = [ToyRunner(hook=lambda jobs: wait_until(lambda: any(said.messages for said in told))) for _ in range(2)]
    pairs = zip(runners, told, strict=True)
    loops = [make_loop(open_store(url), runner, said, trials=20, confirm_top=2) for runner, said in pairs]
    first, second = run_all(loops)
    jobs = [(job.configuration.fingerprint, job.seed) for runner in runners for job in runner.jobs]
    assert len(jobs) == len(set(jobs))
    study = open_store(url).load_study("toy-study")
    assert len(study.of_kind(TrialKind.SEARCH, state=TrialState.COMPLETE)) == 20
    assert {item.attempts for item in study.trials} == {1}
    assert first.study.trials == second.study.trials == study.trials
    assert first.summary == second.summary
    # One of them trained everything; the other one said so, showed it all, and came to the same end.
    driver = 0 if runners[0].jobs else 1
    assert runners[1 - driver].jobs == []
    assert any("is driven by process" in text for text in told[1 - driver].messages)
    assert told[1 - driver].messages[-1] == "Driving study toy-study from here on."
    assert set(told[1 - driver].finished) <= set(told[driver].finished) == set(range(len(study.trials)))
    assert open_store(url).drivers() == []


def test_a_driver_that_lost_the_study_stops_driving_and_says_so(tmp_path: Path) -> None:
    """The first one is paused past its lease; meanwhile the second one takes over."""
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    stores = [open_store(url), open_store(url)]
    told = [Said(), Said()]
    seats = [
        DriverSeat(store, "toy-study", executor="local", progress=said, lease_s=1.0)
        for store, said in zip(stores, told, strict=True)
    ]
    paused, resume = threading.Event(), threading.Event()

    def pause(jobs: Sequence[Job]) -> None:
        if not paused.is_set():
            seats[0]._done.set()  # no heartbeat comes from a process that is stopped
            paused.set()
            assert resume.wait(30)

    runners = [ToyRunner(hook=pause), ToyRunner(hook=lambda jobs: resume.set())]
    loops = [
        make_loop(store, runner, said, trials=8, confirm_top=0, seat=seat)
        for store, runner, said, seat in zip(stores, runners, told, seats, strict=True)
    ]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(loops[0].run)
        assert paused.wait(30)
        second = pool.submit(loops[1].run)
        # The heartbeat would have told it; a process that wakes up learns it with its next one.
        assert resume.wait(30)
        seats[0]._keep(_Once())  # type: ignore[arg-type]
        results = [first.result(60), second.result(60)]
    assert results[0].study.trials == results[1].study.trials
    assert any(
        text.endswith("This process stops driving it.") and "does not drive study 'toy-study' any more" in text
        for text in told[0].messages
    )
    assert any("is driven by process" in text for text in told[0].messages[1:])
    assert len(results[0].study.of_kind(TrialKind.SEARCH, state=TrialState.COMPLETE)) == 8
    assert {item.attempts for item in results[0].study.trials} == {1}


class _Once:
    """An event that lets one heartbeat through."""

    def __init__(self) -> None:
        self._n = 0

    def wait(self, timeout: float) -> bool:
        self._n += 1
        return self._n > 1


def test_an_iteration_costs_what_has_changed(tmp_path: Path) -> None:
    """Oracle: the number of trials that are read from the store while two more are searched for."""
    counts = []
    for n_before in (2, 30):
        store = CountingStore()
        make_loop(store, ToyRunner(), trials=n_before, confirm_top=0).run()
        loop = make_loop(store, ToyRunner(), trials=n_before + 2, confirm_top=0)
        store.n_read = 0
        loop.run()
        # Everything is read once, for the loop and the executor.
        counts.append(store.n_read - n_before)
    assert counts[0] == counts[1] < 15


class CountingStore(MemoryStore):
    """Counts the trials that it hands out whole."""

    n_read = 0

    def load_study(self, name: str) -> Study:
        study = super().load_study(name)
        self.n_read += len(study.trials)
        return study

    def load_changes(self, study_name: str, mark: StudyMark | None, *, running: bool = False) -> StudyChanges:
        changes = super().load_changes(study_name, mark, running=running)
        # Everything at once is loaded as a study.
        self.n_read += 0 if mark is None else len(changes.trials)
        return changes


def test_what_takes_long_is_worked_out_anew_when_enough_has_happened() -> None:
    due = [n for n in range(1, 2001) if _is_due(n, n - 1)]
    assert due[:399] == list(range(1, 400))
    assert len(due) < 1000
    assert max(later - earlier for earlier, later in itertools.pairwise(due)) <= 10
    assert _is_due(1999, 500)
    assert not _is_due(1999, 1998)
