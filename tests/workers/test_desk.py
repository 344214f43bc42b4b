from __future__ import annotations

from typing import Any

import pytest

from autopeft.exceptions import StoreError
from autopeft.study import Study, TrialState
from tests.orchestrate.test_executor import make_store
from tests.workers.fake_engine import FakeEngine
from workers import desk
from workers.desk import Desk
from workers.messages import Abort, Open, Price


def make(engine: FakeEngine, *ranks: int) -> tuple[Desk, Any, list[Any]]:
    store = make_store(*(ranks or (1,)))
    made = Desk(engine, store, grace_s=0.2)  # type: ignore[arg-type]
    trials = [store.claim_trial("study", "w", lease_s=600) for _ in ranks or (1,)]
    return made, store, trials


def bare(store: Any) -> Study:
    return Study(spec=store.load_study("study").spec, trials=(), attributes={})


def train(made: Desk, trials: list[Any], **changes: Any) -> Any:
    options = {"worker": "w", "lost": lambda: (), "is_stopping": lambda: False, **changes}
    return made.train("study", trials, **options)


def test_a_study_is_opened_once_while_nothing_about_it_changes() -> None:
    engine = FakeEngine(cohort=3)
    made, store, _ = make(engine)
    for _ in range(2):
        assert made.open(bare(store), is_stopping=lambda: False) == (None, 3)
    assert sum(isinstance(item, Open) for item in engine.received) == 1
    changed = Study(spec=bare(store).spec, trials=(), attributes={"precision": "bfloat16"})
    made.open(changed, is_stopping=lambda: False)
    assert sum(isinstance(item, Open) for item in engine.received) == 2
    assert made.resident == ("study",)


def test_points_are_stored_and_the_endings_come_back() -> None:
    made, store, trials = make(FakeEngine(rungs=[3]), 1, 2)
    made.open(bare(store), is_stopping=lambda: False)
    endings = train(made, trials)
    assert [item.failure for item in endings] == [None, None]
    assert [[point.step for point in item.curve] for item in store.load_study("study").trials] == [[3, 9], [3, 9]]


@pytest.mark.parametrize("why", ["stopping", "lost"])
def test_a_run_that_nobody_wants_is_aborted(why: str) -> None:
    engine = FakeEngine(slow=True)
    made, store, trials = make(engine)
    made.open(bare(store), is_stopping=lambda: False)
    changes: dict[str, Any] = {"is_stopping": lambda: True} if why == "stopping" else {"lost": lambda: (0,)}
    assert train(made, trials, **changes) is None
    assert any(isinstance(item, Abort) for item in engine.received)
    assert made.is_alive


def test_an_engine_that_does_not_end_its_run_is_killed() -> None:
    class Deaf(FakeEngine):
        def send(self, message: Any) -> None:
            if not isinstance(message, Abort):
                super().send(message)

    made, store, trials = make(Deaf(slow=True))
    made.open(bare(store), is_stopping=lambda: False)
    assert train(made, trials, is_stopping=lambda: True) is None
    assert not made.is_alive


def test_of_several_trials_one_that_is_lost_does_not_end_the_others() -> None:
    made, store, trials = make(FakeEngine(), 1, 2)
    made.open(bare(store), is_stopping=lambda: False)
    store.release_trial("study", 0, "w")
    endings = train(made, trials, lost=lambda: (0,))
    assert len(endings) == 2
    assert store.load_trial("study", 1).state is TrialState.RUNNING


def test_training_goes_on_without_points_when_the_store_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "_POINT_PATIENCE_S", 0.05)
    monkeypatch.setattr(desk, "_POINT_PAUSE_S", 0.01)
    made, store, trials = make(FakeEngine(rungs=[3]))
    made.open(bare(store), is_stopping=lambda: False)

    def away(*_: Any) -> None:
        raise StoreError("the database cannot be reached")

    monkeypatch.setattr(store, "add_point", away)
    (ending,) = train(made, trials)
    assert ending.measurements[0].metrics["accuracy"] > 0


def test_a_price_is_asked_for_once() -> None:
    engine = FakeEngine()
    made, store, trials = make(engine)
    made.open(bare(store), is_stopping=lambda: False)
    first = made._price("study", trials[0].configuration)
    assert made._price("study", trials[0].configuration) == first
    assert {"trainable_parameters", "stored_bytes"} <= set(first)
    assert sum(isinstance(item, Price) for item in engine.received) == 1
