"""The contract of `TrialStore` as a test class: a store proves itself by subclassing it with one fixture, ``store``."""

from __future__ import annotations

import pytest

from autopeft.store import TrialStore
from tests.store.builders import FakeClock, make_spec
from tests.store.contract_changes import ChangesContract
from tests.store.contract_cluster import ClusterContract
from tests.store.contract_leases import LeaseContract
from tests.store.contract_studies import StudyContract
from tests.store.contract_trials import TrialContract
from tests.store.contract_values import ValueContract


class StoreContract(StudyContract, TrialContract, LeaseContract, ValueContract, ClusterContract, ChangesContract):
    """What every store promises; the store is to be built with the fixture ``clock``."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def study(self, store: TrialStore) -> str:
        store.create_study(make_spec("s"))
        return "s"

    def test_is_a_trial_store(self, store: TrialStore) -> None:
        assert isinstance(store, TrialStore)
