from __future__ import annotations

import os

from autopeft.orchestrate._recover import MAX_ATTEMPTS, recover
from autopeft.orchestrate._worker_id import worker_id
from autopeft.store import LOST_WORKER
from autopeft.study import TrialState
from tests.orchestrate.test_executor import make_store


def test_a_living_worker_keeps_its_trial_and_a_dead_one_loses_it_before_the_lease_ends() -> None:
    store = make_store(1, 2)
    alive = worker_id()
    dead = alive.replace(f":{os.getpid()}:", ":4194304:")
    store.claim_trial("study", alive, lease_s=600)
    store.claim_trial("study", dead, lease_s=600)
    assert recover(store, "study") == [1]
    assert [item.state for item in store.load_study("study").trials] == [TrialState.RUNNING, TrialState.WAITING]


def test_a_trial_that_loses_worker_after_worker_is_given_up() -> None:
    store = make_store(1)
    dead = worker_id().replace(f":{os.getpid()}:", ":4194304:")
    for _ in range(MAX_ATTEMPTS):
        assert store.claim_trial("study", dead, lease_s=600) is not None
        assert recover(store, "study") == [0]
    trial = store.load_trial("study", 0)
    assert trial.failure is not None
    assert (trial.state, trial.failure.reason) == (TrialState.FAILED, LOST_WORKER)
