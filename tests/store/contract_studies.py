"""The part of the store's contract that concerns studies."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from autopeft.exceptions import NotFoundError, StudyMismatchError, UsageError
from autopeft.store import TrialStore
from autopeft.study import (
    TrialKind,
    TrialState,
)
from tests.store.builders import FAILURE, FakeClock, make_draft, make_measurement, make_point, make_spec


class StudyContract:
    """Studies, attributes and summaries."""

    def test_created_study_comes_back_as_it_was(self, store: TrialStore) -> None:
        created = store.create_study(make_spec("Größe 🙂 'x' \"y\" %"))
        loaded = store.load_study("Größe 🙂 'x' \"y\" %")
        assert created == loaded
        assert loaded.spec == make_spec("Größe 🙂 'x' \"y\" %")
        assert (loaded.trials, loaded.attributes) == ((), {})

    def test_a_name_that_is_no_unicode_is_refused_when_the_study_is_made(self, store: TrialStore) -> None:
        for make in (store.create_study, store.ensure_study):
            with pytest.raises(UsageError, match=r"'s\\udcff' has half a surrogate pair"):
                make(make_spec("s\udcff"))
        assert store.list_studies() == []

    def test_an_outline_is_the_study_without_its_trials(self, store: TrialStore, study: str) -> None:
        store.add_trial(study, make_draft())
        store.set_attribute(study, "a", {"b": [1, None]})
        outline = store.load_outline(study)
        assert outline == replace(store.load_study(study), trials=())
        with pytest.raises(NotFoundError, match="no study named 'x'"):
            store.load_outline("x")

    def test_create_refuses_a_taken_name_even_with_equal_settings(self, store: TrialStore, study: str) -> None:
        with pytest.raises(StudyMismatchError, match="'s' exists already"):
            store.create_study(make_spec("s"))

    def test_ensure_creates_then_loads(self, store: TrialStore) -> None:
        store.ensure_study(make_spec())
        store.add_trial("s", make_draft())
        assert len(store.ensure_study(make_spec()).trials) == 1

    def test_ensure_takes_a_tuple_for_the_list_it_was_stored_as(self, store: TrialStore) -> None:
        spec = replace(make_spec(), task={"name": "toy", "nested": [("a", "b")]})
        store.ensure_study(spec)
        assert store.ensure_study(spec).spec.task["nested"] == [["a", "b"]]

    def test_ensure_lists_every_difference_and_changes_nothing(self, store: TrialStore, study: str) -> None:
        before = store.load_study(study)
        with pytest.raises(StudyMismatchError) as caught:
            store.ensure_study(make_spec(budget=5, seed=9))
        assert "budget: 5 here, 1000 there" in str(caught.value)
        assert "seed: 9 here, 0 there" in str(caught.value)
        assert store.load_study(study) == before

    def test_unknown_study_is_named_with_the_nearest(self, store: TrialStore) -> None:
        store.create_study(make_spec("reviews"))
        with pytest.raises(NotFoundError, match=r"no study named 'review' in .*Did you mean 'reviews'"):
            store.load_study("review")

    def test_unknown_study_everywhere(self, store: TrialStore) -> None:
        calls = [
            lambda: store.load_study("x"),
            lambda: store.load_trial("x", 0),
            lambda: store.set_attribute("x", "k", 1),
            lambda: store.settle_attribute("x", "k", 1),
            lambda: store.set_note("x", 0, "k", 1),
            lambda: store.add_trial("x", make_draft()),
            lambda: store.claim_trial("x", "w", lease_s=1),
            lambda: store.heartbeat("x", 0, "w", 1),
            lambda: store.add_point("x", 0, "w", make_point(1)),
            lambda: store.complete_trial("x", 0, "w", [make_measurement()]),
            lambda: store.fail_trial("x", 0, "w", FAILURE),
            lambda: store.release_trial("x", 0, "w"),
            lambda: store.release_expired("x"),
            lambda: store.running_workers("x"),
        ]
        for call in calls:
            with pytest.raises(NotFoundError, match="no study named 'x'"):
                call()

    def test_unknown_trial_everywhere(self, store: TrialStore, study: str) -> None:
        store.add_trial(study, make_draft())
        for number in (-1, 1):
            calls = [
                lambda n=number: store.load_trial(study, n),
                lambda n=number: store.set_note(study, n, "k", 1),
                lambda n=number: store.heartbeat(study, n, "w", 1),
                lambda n=number: store.add_point(study, n, "w", make_point(1)),
                lambda n=number: store.complete_trial(study, n, "w", [make_measurement()]),
                lambda n=number: store.fail_trial(study, n, "w", FAILURE),
                lambda n=number: store.release_trial(study, n, "w"),
                lambda n=number: store.add_trial(study, make_draft(9, kind=TrialKind.CONFIRMATION, parent=n)),
            ]
            for call in calls:
                with pytest.raises(NotFoundError, match=f"no trial {number} in study 's'; it has trials 0 to 0"):
                    call()

    def test_attributes_are_replaced_and_keep_null(self, store: TrialStore, study: str) -> None:
        store.set_attribute(study, "probe", {"seconds": 0.1})
        store.set_attribute(study, "probe", {"seconds": 0.2, "layers": (1, 2)})
        store.set_attribute(study, "none", None)
        store.set_attribute(study, "text", "5")
        assert store.load_study(study).attributes == {
            "probe": {"seconds": 0.2, "layers": [1, 2]},
            "none": None,
            "text": "5",
        }

    def test_the_first_to_settle_an_attribute_decides(self, store: TrialStore, study: str) -> None:
        assert store.settle_attribute(study, "scores", {"x": (1, 2)}) == {"x": [1, 2]}
        assert store.settle_attribute(study, "scores", {"x": 3}) == {"x": [1, 2]}
        store.set_attribute(study, "none", None)
        assert store.settle_attribute(study, "none", 1) is None
        assert store.load_study(study).attributes == {"scores": {"x": [1, 2]}, "none": None}

    def test_all_who_settle_an_attribute_at_once_get_the_same(self, store: TrialStore, study: str) -> None:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda value: store.settle_attribute(study, "k", value), range(16)))
        assert set(found) == {store.load_study(study).attributes["k"]}

    @pytest.mark.parametrize("value", [float("nan"), {"x": [float("inf")]}, object(), {1, 2}])
    def test_attributes_refuse_what_json_cannot_say(self, store: TrialStore, study: str, value: object) -> None:
        with pytest.raises(ValueError, match="attribute 'k' must be JSON-ready"):
            store.set_attribute(study, "k", value)
        with pytest.raises(ValueError, match="attribute 'k' must be JSON-ready"):
            store.settle_attribute(study, "k", value)
        assert store.load_study(study).attributes == {}

    def test_summaries_count_states_and_know_the_last_activity(self, store: TrialStore, clock: FakeClock) -> None:
        created = clock.now
        store.create_study(make_spec("b"))
        clock.advance(1)
        store.create_study(make_spec("a"))
        for rank in (1, 2, 3, 4):
            store.add_trial("b", make_draft(rank))
        for _ in range(3):
            store.claim_trial("b", "w", lease_s=60)
        store.complete_trial("b", 0, "w", [make_measurement()])
        store.fail_trial("b", 1, "w", FAILURE)
        beaten = clock.advance(10)
        store.heartbeat("b", 2, "w", 60)
        first, second = store.list_studies()
        assert (first.name, second.name) == ("b", "a")
        assert first.spec == make_spec("b")
        assert first.n_trials == {
            TrialState.WAITING: 1,
            TrialState.RUNNING: 1,
            TrialState.COMPLETE: 1,
            TrialState.PRUNED: 0,
            TrialState.FAILED: 1,
        }
        assert first.n_trials_total == 4
        assert (first.created_at, first.last_activity_at) == (created, beaten)
        assert second.created_at == second.last_activity_at == created + timedelta(seconds=1)
        assert second.n_trials_total == 0
