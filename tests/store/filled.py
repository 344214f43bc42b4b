"""A database with trials in every state."""

from __future__ import annotations

from dataclasses import replace

from autopeft.store import SqlStore
from autopeft.study import CurvePoint, Rung, TrialState
from tests.store.builders import FAILURE, FakeClock, make_draft, make_measurement, make_spec

WORKER = "w"


def claim(store: SqlStore, number: int) -> str:
    trial = store.claim_trial("s", WORKER, lease_s=60, numbers=[number])
    assert trial is not None
    return WORKER


def fill(store: SqlStore, clock: FakeClock) -> None:
    """Trials in every state: COMPLETE, PRUNED after two rungs, FAILED, RUNNING, WAITING; and a second study."""
    store.create_study(make_spec())
    store.create_study(make_spec("other"))
    for rank in range(1, 6):
        store.add_trial("s", make_draft(rank))
    held = claim(store, 0)
    store.add_point("s", 0, held, CurvePoint(step=1, epoch=0.5, metrics={"accuracy": 0.5}, wall_time_s=1.0))
    store.add_point("s", 0, held, CurvePoint(step=2, epoch=1.0, metrics={"train_loss": 0.5}, wall_time_s=1.0))
    clock.advance(30)
    store.complete_trial("s", 0, held, [make_measurement(accuracy=0.75), make_measurement(0.7, split="report")])
    for step in (2, 4):
        held = claim(store, 1)
        rung = Rung(step=step, n_steps=8, n_examples=50)
        measured = replace(make_measurement(0.1 * step), rung=rung)
        store.complete_trial("s", 1, held, [measured], state=TrialState.PRUNED)
        if step == 2:
            store.continue_trial("s", 1)
    store.fail_trial("s", 2, claim(store, 2), FAILURE)
    claim(store, 3)
    store.set_note("s", 0, "suggestion", {"source": "model", "predicted": {"accuracy": {"mean": 0.5}}})
    store.set_attribute("s", "summary", {"headline": "good"})
