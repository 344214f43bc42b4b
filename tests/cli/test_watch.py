from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from autopeft.cli._output import OutputFormat
from autopeft.cli._source import ServiceStudies, open_client
from autopeft.cli._watch import StatusView, watch_status
from autopeft.exceptions import StoreError, UsageError
from autopeft.service import ServiceState
from autopeft.store import SqlStore
from autopeft.study import TrialState
from tests.cli.conftest import Cli, Save, _write_study
from tests.cli.remote import URL, connect
from tests.export.studies import full_study
from tests.service.conftest import drivers, open_service, settings, state  # noqa: F401
from tests.store.builders import FAILURE, claimed


def begun(store: SqlStore) -> str:
    """The study of the tests without its last trials and its summary."""
    study = full_study()
    _write_study(store, replace(study, trials=study.trials[:3], attributes={}))
    return study.spec.name


def finish(store: SqlStore, name: str) -> None:
    store.set_attribute(name, "summary", full_study().attributes["summary"])


def watching(view: StatusView, format: OutputFormat, steps: list[Callable[[], None]]) -> None:
    def sleep(seconds: float) -> None:
        assert seconds == 1
        steps.pop(0)()

    watch_status(view, format, "1s", sleep=sleep)
    assert steps == []


def test_it_shows_what_has_changed_until_the_search_has_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with SqlStore(tmp_path / "a.db") as store:
        name = begun(store)
        view = StatusView(store, name)

        def fail_one() -> None:
            store.fail_trial(name, claimed(store, name, rank=77).number, "w", FAILURE)

        watching(view, OutputFormat.JSON, [lambda: None, fail_one, lambda: finish(store, name)])
        assert view.is_over
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [item["counts"]["search"]["FAILED"] for item in documents] == [0, 1, 1]
    assert [item["is_final"] for item in documents] == [False, False, True]
    assert {item["schema_version"] for item in documents} == {1}


def test_a_source_that_is_away_for_a_while_is_asked_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with SqlStore(tmp_path / "a.db") as store:
        name = begun(store)
        list_studies = store.list_studies

        def away() -> None:
            def fail() -> None:
                raise StoreError("the database is restarting")

            monkeypatch.setattr(store, "list_studies", fail)

        def back() -> None:
            monkeypatch.setattr(store, "list_studies", list_studies)
            finish(store, name)

        watching(StatusView(store, name), OutputFormat.HUMAN, [away, lambda: None, back])
    said = capsys.readouterr()
    assert said.err.count("warning: the database is restarting") == 1
    assert said.out.count("Trials\n") == 2


def test_a_finished_study_is_shown_once(cli: Cli, save: Save) -> None:
    db = save(full_study())
    once = cli("status", "--db", db)
    watched = cli("status", "--watch", "--db", db)
    assert watched.code == 0
    assert watched.out == once.out


def test_a_bad_interval_is_refused(cli: Cli, save: Save) -> None:
    assert cli("status", "--watch", "--interval", "soon", "--db", save(full_study())).code == 2
    with pytest.raises(UsageError, match="duration"):
        watch_status(StatusView(None, None), OutputFormat.JSON, "soon")  # type: ignore[arg-type]


def test_a_trial_that_runs_is_waited_for(tmp_path: Path) -> None:
    with SqlStore(tmp_path / "a.db") as store:
        name = begun(store)
        finish(store, name)
        number = claimed(store, name, rank=77).number
        view = StatusView(store, name)
        view.refresh()
        assert not view.is_over
        store.fail_trial(name, number, "w", FAILURE)
        view.refresh()
        assert view.is_over
        assert store.load_trial(name, number).state is TrialState.FAILED


def test_a_service_is_watched_as_well(
    state: ServiceState,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = begun(state.store)
    connect(monkeypatch, state)
    with open_client(URL, None, None) as client:
        watching(StatusView(ServiceStudies(client), name), OutputFormat.JSON, [lambda: finish(state.store, name)])
    assert len(capsys.readouterr().out.splitlines()) == 2
