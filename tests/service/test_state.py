from __future__ import annotations

from autopeft.service import ServiceState
from autopeft.service._drivers import ProcessDrivers
from autopeft.service._state import find_submission, open_state
from tests.cli.conftest import _write_study
from tests.export.studies import full_study
from tests.service.conftest import SETTINGS


def test_a_service_has_a_private_folder_and_processes_for_drivers(state: ServiceState) -> None:
    assert state.settings.folder.stat().st_mode & 0o777 == 0o700
    real = open_state(state.settings)
    assert isinstance(real.drivers, ProcessDrivers)
    real.close()


def test_rules_know_the_callers_uploads_and_all_studies(state: ServiceState) -> None:
    rules = state.rules("ada")
    assert (rules.owner, rules.allow_code, rules.max_trials) == ("ada", False, 10_000)
    assert not rules.has_study("s")
    study = full_study()
    _write_study(state.store, study)
    assert rules.has_study(study.spec.name)


def test_studies_begun_elsewhere_have_no_submission(state: ServiceState) -> None:
    assert find_submission(state, "s") is None
    made = state.submissions.submit("s", "ada", SETTINGS)
    assert find_submission(state, "s") == made
