"""One worker against a store in memory and an engine that only pretends."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autopeft.exceptions import StoreError
from autopeft.store import MemoryStore, WorkerFacts
from autopeft.study import TrialState
from tests.orchestrate.test_executor import make_store
from tests.study.builders import make_draft, make_spec
from tests.workers.fake_engine import FakeEngine
from workers import desk, supervisor
from workers.messages import Open, Run
from workers.settings import WorkerSettings
from workers.supervisor import Supervisor


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_IDLE_S", (0.01, 0.02))
    monkeypatch.setattr(supervisor, "_STORE_PAUSE_S", (0.02, 0.05))
    monkeypatch.setattr(desk, "_POINT_PAUSE_S", 0.02)


def driven(*ranks: int, executor: str = "workers") -> MemoryStore:
    store = make_store(*ranks)
    store.acquire_driver("study", "driver:k:1:0", executor=executor, lease_s=600)
    return store


def make(store: Any, *engines: FakeEngine, **changes: Any) -> Supervisor:
    """A worker that starts the given engines one after the other, and ends when it has been idle for a moment."""
    waiting = list(engines) or [FakeEngine()]
    settings = WorkerSettings(cache_dir=Path("x"), **{"idle_timeout_s": 0.2, "lease_s": 60.0, **changes})
    return Supervisor(store, settings, start_engine=lambda: waiting.pop(0))  # type: ignore[arg-type, return-value]


def states(store: MemoryStore, study: str = "study") -> list[str]:
    return [item.state.value for item in store.load_study(study).trials]


def test_it_trains_what_waits_and_signs_off() -> None:
    store = driven(1, 2, 3)
    worker = make(store)
    assert worker.run() == 3
    trials = store.load_study("study").trials
    assert {item.state for item in trials} == {TrialState.COMPLETE}
    assert {item.worker for item in trials} == {worker.id}
    assert [item.attempts for item in trials] == [1, 1, 1]
    assert all(len(item.curve) == 1 for item in trials)
    assert trials[0].notes["placement_parameters"] == [7]
    assert store.workers() == []


def test_it_says_how_much_of_the_gpu_its_engine_holds() -> None:
    store = driven(1)
    said: list[Any] = []
    announce = store.announce_worker

    def note(facts: WorkerFacts, lease_s: float) -> frozenset[int]:
        said.append(facts.resources.get("gpu_memory_used_bytes"))
        return announce(facts, lease_s)

    store.announce_worker = note  # type: ignore[assignment, method-assign]
    make(store, FakeEngine(gpu_memory_used_bytes=12_345)).run()
    assert said[0] is None
    assert said[-1] == 12_345


@pytest.mark.parametrize("executor", ["local", None])
def test_a_study_that_asks_for_no_workers_gets_none(executor: str | None) -> None:
    store = make_store(1)
    if executor is not None:
        store.acquire_driver("study", "driver:k:1:0", executor=executor, lease_s=600)
    assert make(store).run() == 0
    assert states(store) == ["WAITING"]
    assert make(store, studies=("study",)).run() == 1, "one that is named is served all the same"


def test_a_study_is_loaded_before_a_trial_of_it_is_held() -> None:
    store = driven(1)
    store.set_attribute("study", "memory_bytes", 1)
    held: list[dict[int, str]] = []

    class Watched(FakeEngine):
        def send(self, message: Any) -> None:
            if isinstance(message, Open):
                held.append(store.running_workers("study"))
            super().send(message)

    assert make(store, Watched()).run() == 1
    assert held == [{}]


def test_a_study_whose_search_is_still_loading_is_not_loaded_for_nothing() -> None:
    store = driven()
    engine = FakeEngine()
    make(store, engine).run()
    assert engine.received == []


def test_once_is_one_trial() -> None:
    store = driven(1, 2)
    assert make(store, is_once=True).run() == 1
    assert states(store) == ["COMPLETE", "WAITING"]


def test_the_pruner_decides_at_rungs() -> None:
    """Oracle: the same study on the local executor stops the same trials (its own tests hold that to the rule)."""
    from autopeft.orchestrate import LocalExecutor, SilentProgress, study_pruner
    from tests.orchestrate.toys import ToyRunner, prepared_search

    prepared = prepared_search(trials=1)
    training = {"batch_size": 16, "rungs": [0.4], "rung_examples": 16}
    spec = replace(prepared.spec, pruner="pareto", training=training)
    found = []
    for is_local in (True, False):
        store = MemoryStore()
        store.create_study(spec)
        pruner = study_pruner(spec, prepared.space.shapes)
        (rung,) = pruner.rungs
        for rank in range(1, 40):
            draft = make_draft(rank=1 + (rank * 17) % 40, learning_rate=1e-3 * rank, cost=1000 + (rank * 7) % 11)
            store.add_trial(spec.name, replace(draft, fidelity=spec.fidelity))
        store.acquire_driver(spec.name, "driver:k:1:0", executor="workers", lease_s=600)
        if is_local:
            executor = LocalExecutor(
                store,
                ToyRunner(rungs=[rung]),  # type: ignore[arg-type]
                SilentProgress(),
                pruner=pruner,
            )
            while executor.advance(spec.name, ["search"]):  # type: ignore[list-item]
                pass
        else:
            make(store, FakeEngine(rungs=[rung])).run()
        found.append([(item.state, item.notes.get("pruning")) for item in store.load_study(spec.name).trials])
    assert found[0] == found[1]
    assert {state for state, _ in found[0]} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_a_trial_that_ends_its_engine_fails_and_the_next_one_runs() -> None:
    store = driven(1, 2)
    bad = FakeEngine(crashes=lambda trial: trial.number == 0)
    assert make(store, bad, FakeEngine()).run() == 2
    first, second = store.load_study("study").trials
    assert first.failure is not None
    assert (first.failure.reason, first.failure.message) == ("crashed", "crashed: signal 11 (SIGSEGV).")
    assert second.state is TrialState.COMPLETE


def test_of_a_cohort_only_the_guilty_fail() -> None:
    store = driven(1, 2, 3, 4)
    is_guilty: Callable[[Any], bool] = lambda trial: trial.number == 2  # noqa: E731
    engines = [FakeEngine(crashes=is_guilty, cohort=3) for _ in range(3)]
    assert make(store, *engines, cohort=3).run() == 4
    assert states(store) == ["COMPLETE", "COMPLETE", "FAILED", "COMPLETE"]
    assert len(next(item for item in engines[0].received if isinstance(item, Run)).trials) == 3


def test_a_study_that_cannot_be_served_is_given_back_and_the_reason_is_known() -> None:
    store = driven(1)
    seen: list[Any] = []
    worker = make(store, FakeEngine(refusal="unknown backbone 'x'"))
    thread = threading.Thread(target=worker.run)
    thread.start()
    deadline = time.monotonic() + 20
    while not seen and time.monotonic() < deadline:
        seen = [item.facts.refusals for item in store.workers() if item.facts.refusals]
    thread.join()
    assert seen == [{"study": "unknown backbone 'x'"}]
    trial = store.load_trial("study", 0)
    assert (trial.state, trial.attempts) == (TrialState.WAITING, 0)


def test_other_package_versions_are_refused_before_anything_is_loaded() -> None:
    store = driven(1)
    store.set_attribute("study", "versions", {"torch": "1.0.0"})
    engine = FakeEngine()
    worker = make(store, engine)
    assert worker.run() == 0
    assert engine.received == []
    assert states(store) == ["WAITING"]
    assert "the study was begun with 1.0.0" in worker._refused["study"][1]


def test_studies_share_a_worker_fairly_and_another_is_served_when_one_is_refused() -> None:
    store = driven(1, 2)
    store.create_study(make_spec("other"))
    for rank in (1, 2):
        store.add_trial("other", make_draft(rank=rank))
    store.acquire_driver("other", "driver:k:1:0", executor="ray", lease_s=600)
    store.set_attribute("study", "versions", {"torch": "1.0.0"})
    assert make(store).run() == 2
    assert states(store, "other") == ["COMPLETE", "COMPLETE"]
    assert states(store) == ["WAITING", "WAITING"]


def test_asked_to_stop_it_gives_back_what_it_holds() -> None:
    store = driven(1)
    worker = make(store, FakeEngine(slow=True), idle_timeout_s=None)
    thread = threading.Thread(target=worker.run)
    thread.start()
    deadline = time.monotonic() + 20
    while states(store) != ["RUNNING"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    worker.stop()
    thread.join(timeout=20)
    assert not thread.is_alive()
    trial = store.load_trial("study", 0)
    assert (trial.state, trial.attempts) == (TrialState.WAITING, 0)
    assert store.workers() == []


def test_a_trial_that_another_worker_has_is_let_go() -> None:
    store = driven(1)

    def lose(run: Run) -> None:
        store.release_expired("study", dead_workers=[worker.id])
        store.claim_trial("study", "other:k:2:0", lease_s=600)

    engine = FakeEngine(slow=True, hook=lose)
    worker = make(store, engine, lease_s=1.0)
    worker.run()
    trial = store.load_trial("study", 0)
    assert (trial.state, trial.worker, trial.measurements) == (TrialState.RUNNING, "other:k:2:0", ())


class Flaky:
    """A store that cannot be reached for some calls; one that fails behind the act has done it all the same."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.before: dict[str, int] = {}
        self.behind: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._store, name)
        if name not in self.before and name not in self.behind:
            return real

        def call(*args: Any, **options: Any) -> Any:
            if self.before.get(name, 0) > 0:
                self.before[name] -= 1
                raise StoreError("the database cannot be reached")
            result = real(*args, **options)
            if self.behind.get(name, 0) > 0:
                self.behind[name] -= 1
                raise StoreError("the connection was lost")
            return result

        return call


@pytest.mark.parametrize(
    "name", ["claim_next", "complete_and_claim", "complete_trial", "add_point", "load_outline", "set_note"]
)
@pytest.mark.parametrize("when", ["before", "behind"])
def test_no_result_is_lost_while_the_store_is_out_of_reach(name: str, when: str) -> None:
    store = driven(1, 2)
    flaky = Flaky(store)
    getattr(flaky, when)[name] = 3 if when == "before" else 1
    if name == "complete_trial":
        # It ends a trial alone where a claim may have been granted whose answer never came.
        flaky.before["complete_and_claim"] = 1
    assert make(flaky, idle_timeout_s=0.5).run() >= 2
    trials = store.load_study("study").trials
    assert {item.state for item in trials} == {TrialState.COMPLETE}
    assert [len(item.measurements) for item in trials] == [1, 1]
    assert {item.attempts for item in trials} == {1}


@pytest.mark.parametrize("name", ["claim_next", "complete_and_claim"])
def test_an_outage_is_said_once_and_so_is_its_end(name: str, caplog: pytest.LogCaptureFixture) -> None:
    flaky = Flaky(driven(1, 2))
    # What may have been granted is not asked for again before that is known.
    flaky.before = {"claim_next": 4} if name == "claim_next" else {"complete_and_claim": 1, "complete_trial": 3}
    with caplog.at_level("INFO", logger="autopeft.worker"):
        assert make(flaky, idle_timeout_s=2.0).run() == 2
    said = [item.getMessage() for item in caplog.records if item.levelname == "WARNING"]
    what = "no trial could be claimed" if name == "claim_next" else "the store cannot be reached"
    assert said == [
        f"{what}; the store is tried again until it answers: the database cannot be reached",
        "the store answers again.",
    ]
    assert not any(flaky.before.values()), "it was tried as often as it took"


def test_another_outage_is_said_again(caplog: pytest.LogCaptureFixture) -> None:
    flaky = Flaky(driven(1))
    flaky.before = {"claim_next": 2, "complete_and_claim": 1, "complete_trial": 1}
    make(flaky, idle_timeout_s=2.0).run()
    assert caplog.text.count("tried again until it answers") == 2
    assert caplog.text.count("the store answers again") == 2


def test_a_result_that_breaks_a_rule_of_the_store_fails_its_trial() -> None:
    store = driven(1)
    broken = Flaky(store)

    def refuse(*_: Any, **__: Any) -> Any:
        raise ValueError("accuracy must be finite")

    broken.complete_and_claim = refuse  # type: ignore[attr-defined]
    make(broken).run()
    failure = store.load_trial("study", 0).failure
    assert failure is not None
    assert "breaks a rule of the store: accuracy must be finite" in failure.message


def test_the_next_trial_is_taken_when_one_ends() -> None:
    store = driven(1, 2, 3)
    asked: list[str] = []

    class Watched(Flaky):
        def __getattr__(self, name: str) -> Any:
            asked.append(name)
            return super().__getattr__(name)

    assert make(Watched(store)).run() == 3
    # The first one, and when nothing waits.
    assert asked.count("complete_and_claim") == 3
    assert asked.count("complete_trial") == 0
    first = asked.index("complete_and_claim")
    last = len(asked) - 1 - asked[::-1].index("complete_and_claim")
    assert asked[:first].count("claim_next") == 1
    assert asked[first:last].count("claim_next") == 0


@pytest.mark.parametrize("n_unheard", [0, 1], ids=["told", "without a word"])
def test_asked_to_stop_it_gives_back_what_it_was_given_when_a_trial_ended(n_unheard: int) -> None:
    store = driven(1, 2)
    flaky = Flaky(store)
    flaky.behind["complete_and_claim"] = n_unheard
    worker = make(flaky)
    finish = store.complete_and_claim

    def stopped(*args: Any, **options: Any) -> Any:
        found = finish(*args, **options)
        worker.stop()
        return found

    store.complete_and_claim = stopped  # type: ignore[method-assign]
    assert worker.run() == 1
    assert states(store) == ["COMPLETE", "WAITING"]
    assert store.load_trial("study", 1).attempts == 0


@pytest.mark.parametrize("name", ["claim_next", "complete_and_claim"])
def test_what_it_was_given_without_a_word_is_found_where_nobody_drives(name: str) -> None:
    store = make_store(1, 2)
    flaky = Flaky(store)
    flaky.behind[name] = 1
    assert make(flaky, studies=("study",)).run() == 2
    assert states(store) == ["COMPLETE", "COMPLETE"]
    assert [item.attempts for item in store.load_study("study").trials] == [1, 1]


def test_it_comes_to_an_end_while_the_store_is_out_of_reach() -> None:
    flaky = Flaky(driven(1))
    flaky.before = {"claim_next": 1_000_000, "drivers": 1_000_000}
    thread = threading.Thread(target=make(flaky, grace_s=0.3).run, daemon=True)
    thread.start()
    thread.join(timeout=20)
    assert not thread.is_alive()


def test_a_supervisor_is_light() -> None:
    """What crashes and what is large is the engine's."""
    code = "import sys, workers.supervisor; print([n for n in ('torch', 'transformers', 'ray') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
