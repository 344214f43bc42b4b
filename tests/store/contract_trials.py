"""The part of the store's contract that concerns adding and claiming trials."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from autopeft.configuration import Configuration, ModuleSpec, Site
from autopeft.exceptions import NotFoundError, TrialConflictError
from autopeft.store import TrialStore
from autopeft.study import (
    Fidelity,
    Trial,
    TrialKind,
    TrialState,
)
from tests.store.builders import FAILURE, FakeClock, ended, make_draft, make_measurement, make_spec


class TrialContract:
    """Numbers, identities and claims."""

    def test_numbers_are_consecutive_per_study_over_all_kinds(self, store: TrialStore, study: str) -> None:
        store.create_study(make_spec("other"))
        store.add_trial("other", make_draft(1))
        added = [
            store.add_trial(study, make_draft(1, kind=TrialKind.BASELINE, label="LoRA r=1")),
            store.add_trial(study, make_draft(2)),
            store.add_trial(study, make_draft(2, kind=TrialKind.CONFIRMATION, parent=1)),
        ]
        assert [trial.number for trial in added] == [0, 1, 2]
        assert store.load_study(study).trials == tuple(added)

    def test_added_trial_is_waiting_and_keeps_its_draft(self, store: TrialStore, study: str, clock: FakeClock) -> None:
        draft = make_draft(label="ein Größenvergleich")
        trial = store.add_trial(study, draft)
        assert trial == Trial(number=0, draft=draft, state=TrialState.WAITING, created_at=clock.now)
        assert trial.draft.params == draft.params
        assert [type(value) for value in trial.draft.params.values()] == [int, bool, str, float]  # type: ignore[union-attr]
        assert trial.configuration.fingerprint == draft.configuration.fingerprint
        assert store.add_trial(study, replace(make_draft(5), params=None)).draft.params is None

    def test_a_configuration_is_given_back_as_it_is_read(self, store: TrialStore, study: str) -> None:
        """Relatives of numbers become numbers at once; what could not be read again is refused, and nothing stored."""
        relatives = ModuleSpec.make("lora", 4, scale=np.float64(2.0), dropout=0.1)
        placements = [(Site(layer=0, part="q"), relatives)]
        configuration = Configuration.make(placements, learning_rate=np.float64(1e-3))
        added = store.add_trial(study, replace(make_draft(), configuration=configuration)).configuration
        assert repr(added) == repr(store.load_trial(study, 0).configuration)
        assert type(added.learning_rate) is float
        assert type(added.placements[0].module.option("scale", 1.0)) is float
        unreadable = [(Site(layer=0, part="q"), ModuleSpec.make("lora", 4, ranks=(1, 2)))]
        configuration = Configuration.make(unreadable, learning_rate=1e-3)
        with pytest.raises(TypeError):
            store.add_trial(study, replace(make_draft(), configuration=configuration))
        assert len(store.load_study(study).trials) == 1

    def test_number_must_be_the_next(self, store: TrialStore, study: str) -> None:
        store.add_trial(study, make_draft(1), number=0)
        for number in (0, 2, -1):
            with pytest.raises(TrialConflictError, match=f"the next trial of study 's' is 1, not {number}"):
                store.add_trial(study, make_draft(2), number=number)
        assert store.add_trial(study, make_draft(2), number=1).number == 1

    @pytest.mark.parametrize("state", list(TrialState))
    def test_identity_is_taken_in_every_state(self, store: TrialStore, study: str, state: TrialState) -> None:
        store.add_trial(study, make_draft())
        if state is not TrialState.WAITING:
            store.claim_trial(study, "w", lease_s=60)
        if state in (TrialState.COMPLETE, TrialState.PRUNED):
            store.complete_trial(study, 0, "w", [ended(make_measurement(), state)], state)
        if state is TrialState.FAILED:
            store.fail_trial(study, 0, "w", FAILURE)
        assert store.load_trial(study, 0).state is state
        with pytest.raises(TrialConflictError, match=r"already has this configuration.*: trial 0\."):
            store.add_trial(study, make_draft(kind=TrialKind.BASELINE))
        assert len(store.load_study(study).trials) == 1

    def test_identity_is_configuration_fidelity_seed_and_role(self, store: TrialStore, study: str) -> None:
        drafts = [
            make_draft(),
            make_draft(5),
            make_draft(seed=1),
            make_draft(fidelity=Fidelity(train_examples=100, epochs=3)),
            make_draft(fidelity=Fidelity(train_examples=101, epochs=2)),
            make_draft(kind=TrialKind.CONFIRMATION, parent=0),
        ]
        for draft in drafts:
            store.add_trial(study, draft)
        assert [trial.draft for trial in store.load_study(study).trials] == drafts
        store.create_study(make_spec("other"))
        store.add_trial("other", make_draft())

    def test_a_refused_trial_leaves_no_gap(self, store: TrialStore, study: str) -> None:
        store.add_trial(study, make_draft(1))
        with pytest.raises(TrialConflictError):
            store.add_trial(study, make_draft(1))
        assert store.add_trial(study, make_draft(2)).number == 1

    def test_several_are_added_at_once_with_their_notes(self, store: TrialStore, study: str, clock: FakeClock) -> None:
        store.add_trial(study, make_draft(1))
        drafts = [make_draft(2), make_draft(2, kind=TrialKind.CONFIRMATION, parent=1), make_draft(3)]
        notes = [{"suggestion": {"source": "model"}}, {}, {"a": [1, None]}]
        added = store.add_trials(study, drafts, number=1, notes=notes)
        assert [(item.number, item.draft, item.notes) for item in added] == [
            (1, drafts[0], notes[0]), (2, drafts[1], {}), (3, drafts[2], notes[2]),
        ]  # fmt: skip
        assert {(item.state, item.created_at) for item in added} == {(TrialState.WAITING, clock.now)}
        assert store.load_study(study).trials[1:] == tuple(added)
        assert store.add_trials(study, []) == []
        assert [item.number for item in store.add_trials(study, [make_draft(9)])] == [4]

    def test_several_are_added_or_none(self, store: TrialStore, study: str) -> None:
        store.add_trial(study, make_draft(1))
        for drafts, number, match in (
            ([make_draft(2), make_draft(1)], None, r"already has this configuration.*: trial 0\."),
            ([make_draft(2), make_draft(2)], None, r"already has this configuration.*: trial 1\."),
            ([make_draft(2), make_draft(3)], 2, "the next trial of study 's' is 1, not 2"),
        ):
            with pytest.raises(TrialConflictError, match=match):
                store.add_trials(study, drafts, number=number)
        with pytest.raises(NotFoundError, match="no trial 3"):
            store.add_trials(study, [make_draft(2), make_draft(3, kind=TrialKind.CONFIRMATION, parent=3)])
        with pytest.raises(ValueError, match="notes for none or all of the trials, but got 1 for 2"):
            store.add_trials(study, [make_draft(2), make_draft(3)], notes=[{}])
        with pytest.raises(ValueError, match="notes must be JSON-ready"):
            store.add_trials(study, [make_draft(2)], notes=[{"x": float("nan")}])
        assert len(store.load_study(study).trials) == 1
        assert store.add_trial(study, make_draft(2)).number == 1

    def test_claims_go_by_number_and_end(self, store: TrialStore, study: str, clock: FakeClock) -> None:
        for rank in (1, 2):
            store.add_trial(study, make_draft(rank))
        now = clock.advance(5)
        first = store.claim_trial(study, "a", lease_s=60)
        second = store.claim_trial(study, "b", lease_s=60)
        assert first is not None
        assert second is not None
        assert (first.number, first.state, first.attempts, first.worker) == (0, TrialState.RUNNING, 1, "a")
        assert first.started_at == now
        assert (second.number, second.worker) == (1, "b")
        assert store.claim_trial(study, "c", lease_s=60) is None
        assert store.running_workers(study) == {0: "a", 1: "b"}
        assert store.load_trial(study, 0) == first

    def test_claims_choose_by_kind_and_number(self, store: TrialStore, study: str) -> None:
        kinds = [TrialKind.SEARCH, TrialKind.BASELINE, TrialKind.SEARCH, TrialKind.SEARCH]
        for rank, kind in enumerate(kinds, start=1):
            store.add_trial(study, make_draft(rank, kind=kind))

        def claim(**choice: object) -> int | None:
            trial = store.claim_trial(study, "w", lease_s=60, **choice)  # type: ignore[arg-type]
            return None if trial is None else trial.number

        assert claim(kinds=[]) is None
        assert claim(numbers=[]) is None
        assert claim(kinds=[TrialKind.CONFIRMATION]) is None
        assert claim(kinds={TrialKind.BASELINE}) == 1
        assert claim(numbers=[3, 2]) == 2
        assert claim(kinds=[TrialKind.SEARCH], numbers=[1, 3]) == 3
        assert claim() == 0

    @pytest.mark.parametrize("lease_s", [0, -1, float("nan"), float("inf")])
    def test_leases_last_a_positive_time(self, store: TrialStore, study: str, lease_s: float) -> None:
        store.add_trial(study, make_draft())
        with pytest.raises(ValueError, match="lease_s > 0"):
            store.claim_trial(study, "w", lease_s=lease_s)
        store.claim_trial(study, "w", lease_s=1)
        with pytest.raises(ValueError, match="lease_s > 0"):
            store.heartbeat(study, 0, "w", lease_s)
        with pytest.raises(ValueError, match="a worker needs a name"):
            store.claim_trial(study, "", lease_s=1)

    def test_threads_never_claim_the_same_trial(self, store: TrialStore, study: str) -> None:
        for rank in range(1, 25):
            store.add_trial(study, make_draft(rank))
        barrier = threading.Barrier(4)

        def work(worker: str) -> list[int]:
            barrier.wait()
            numbers = []
            while (trial := store.claim_trial(study, worker, lease_s=60)) is not None:
                numbers.append(trial.number)
            return numbers

        with ThreadPoolExecutor(4) as pool:
            claimed = [number for numbers in pool.map(work, "abcd") for number in numbers]
        assert sorted(claimed) == list(range(24))
        assert {trial.attempts for trial in store.load_study(study).trials} == {1}

    def test_threads_adding_the_same_trials_add_each_once(self, store: TrialStore, study: str) -> None:
        barrier = threading.Barrier(4)

        def work(_: int) -> Counter[str]:
            barrier.wait()
            outcome: Counter[str] = Counter()
            for rank in range(1, 11):
                try:
                    store.add_trial(study, make_draft(rank))
                    outcome["added"] += 1
                except TrialConflictError:
                    outcome["conflict"] += 1
            return outcome

        with ThreadPoolExecutor(4) as pool:
            total = sum(pool.map(work, range(4)), Counter())
        assert total == {"added": 10, "conflict": 30}
        trials = store.load_study(study).trials
        assert [trial.number for trial in trials] == list(range(10))
        assert len({trial.draft.identity for trial in trials}) == 10
