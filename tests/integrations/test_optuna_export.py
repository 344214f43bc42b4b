"""Oracles: Optuna and optuna-dashboard, which read what was written."""

from __future__ import annotations

import io
import json
import warnings
from datetime import UTC
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState as OptunaState

from autopeft.exceptions import StoreError, UsageError
from autopeft.integrations.optuna import export_study, search_space
from autopeft.study import Study, TrialKind, TrialState
from tests.integrations.studies import make_study
from tests.samplers.problem import ACCURACY, small_space


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def exported(study: Study, path: Path, **options: Any) -> optuna.Study:
    export_study(study, str(path), **options)
    return optuna.load_study(study_name=options.get("name", study.spec.name), storage=f"sqlite:///{path}")


def test_every_trial_is_there_as_it_was(tmp_path: Path) -> None:
    study = make_study()
    theirs = exported(study, tmp_path / "x.db").trials
    known = search_space(small_space())
    for ours, their in zip(study.trials, theirs, strict=True):
        assert their.number == ours.number
        assert their.params == dict(ours.draft.params or {})
        assert their.distributions == {name: known[name] for name in their.params}
        assert their.state.name == {TrialState.FAILED: "FAIL"}.get(ours.state, ours.state.name)
        assert their.user_attrs["state"] == ours.state.value
        assert their.user_attrs["kind"] == ours.kind.value
        assert their.user_attrs["fingerprint"] == ours.configuration.fingerprint
        assert their.user_attrs["trainable_parameters"] == ours.draft.trainable_parameters
        if ours.state in (TrialState.COMPLETE, TrialState.PRUNED):
            assert their.values == [ours.value("accuracy"), ours.draft.trainable_parameters]
        else:
            assert their.values is None
        if ours.finished_at is not None:
            assert their.datetime_complete.astimezone(UTC) == ours.finished_at
    assert {item.state for item in theirs} == set(OptunaState)


def test_the_study_says_what_it_is(tmp_path: Path) -> None:
    study = make_study()
    theirs = exported(study, tmp_path / "x.db")
    assert [item.name for item in theirs.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert theirs.metric_names == ["accuracy", "trainable_parameters"]
    assert theirs.user_attrs["autopeft:headline"] == "Better."
    assert theirs.user_attrs["autopeft:spec"] == json.loads(json.dumps(study.spec.to_dict()))


def test_what_optuna_has_no_place_for_are_attributes(tmp_path: Path) -> None:
    theirs = exported(make_study(), tmp_path / "x.db").trials
    assert theirs[2].user_attrs["failure"] == "divergence: the loss became nan"
    assert theirs[3].user_attrs["notes"] == {"suggestion": {"source": "model"}}
    assert theirs[10].user_attrs["label"] == "LoRA r=8 on q,v"
    assert theirs[11].user_attrs["report_metrics"] == {"accuracy": 0.61}
    assert theirs[11].user_attrs["seed"] == 7
    assert (
        theirs[11].user_attrs["parent"]
        == max(
            (
                item
                for item in make_study().trials
                if item.kind is TrialKind.SEARCH and item.state is TrialState.COMPLETE
            ),
            key=lambda item: item.value("accuracy") or 0,
        ).number
    )


def test_with_one_objective_the_curve_becomes_intermediate_values(tmp_path: Path) -> None:
    theirs = exported(make_study(objectives=(ACCURACY,)), tmp_path / "x.db").trials
    assert theirs[0].intermediate_values == {10: 0.4, 20: 0.5}
    assert "curve" not in theirs[0].user_attrs


def test_with_several_the_curve_is_an_attribute(tmp_path: Path) -> None:
    theirs = exported(make_study(), tmp_path / "x.db").trials
    assert theirs[0].intermediate_values == {}
    assert [item["step"] for item in theirs[0].user_attrs["curve"]] == [10, 20]


def test_the_best_trials_of_optuna_are_the_front(tmp_path: Path) -> None:
    from autopeft.study import Front

    study = make_study(n=30)
    front = Front.of(study.trials, study.spec.objectives)
    best = {tuple(item.values) for item in exported(study, tmp_path / "x.db").best_trials}
    assert best == {(item.value("accuracy"), item.draft.trainable_parameters) for item in front.trials}


def test_a_complete_trial_without_a_value_fails_there_and_says_so(tmp_path: Path) -> None:
    from dataclasses import replace

    study = make_study()
    blind = replace(study.trials[0].measurements[0], metrics={})
    first = replace(study.trials[0], measurements=(blind,))
    theirs = exported(replace(study, trials=(first, *study.trials[1:])), tmp_path / "x.db").trials
    assert theirs[0].state is OptunaState.FAIL
    assert theirs[0].user_attrs["state"] == "COMPLETE"


def test_a_second_export_is_refused_but_another_name_is_fine(tmp_path: Path) -> None:
    study = make_study()
    exported(study, tmp_path / "x.db")
    with pytest.raises(UsageError, match=r"x.db has a study 'toy' already; choose another name"):
        export_study(study, str(tmp_path / "x.db"))
    assert len(exported(study, tmp_path / "x.db", name="again").trials) == 12
    assert len(optuna.load_study(study_name="toy", storage=f"sqlite:///{tmp_path / 'x.db'}").trials) == 12


@pytest.mark.parametrize("storage", ["{}/no/such/folder/x.db", "nosuchdatabase://host/x", "sqlite:///{}"])
def test_a_storage_that_cannot_be_used_is_named(tmp_path: Path, storage: str) -> None:
    with pytest.raises(StoreError, match=r"Optuna storage .* cannot be used"):
        export_study(make_study(), storage.format(tmp_path))


def test_a_file_that_is_no_database_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_text("no database " * 100)
    with pytest.raises(StoreError, match="not a database"):
        export_study(make_study(), str(path))
    assert path.read_text() == "no database " * 100


def test_an_empty_study_is_an_empty_study(tmp_path: Path) -> None:
    from dataclasses import replace

    assert exported(replace(make_study(), trials=(), attributes={}), tmp_path / "x.db").trials == []


@pytest.mark.parametrize("objectives", [(ACCURACY,), None])
def test_optuna_dashboard_opens_it(tmp_path: Path, objectives: Any) -> None:
    """Its own web application, asked over WSGI, as a browser would ask it."""
    dashboard = pytest.importorskip("optuna_dashboard")
    study = make_study(**({} if objectives is None else {"objectives": objectives}))
    exported(study, tmp_path / "x.db")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        app = dashboard.wsgi(f"sqlite:///{tmp_path / 'x.db'}")

        def ask(path: str) -> Any:
            status: list[str] = []
            environ = {
                "REQUEST_METHOD": "GET",
                "PATH_INFO": path,
                "SERVER_NAME": "localhost",
                "SERVER_PORT": "80",
                "wsgi.input": io.BytesIO(),
                "wsgi.errors": io.StringIO(),
                "wsgi.url_scheme": "http",
            }
            body = b"".join(app(environ, lambda text, headers, *rest: status.append(text)))
            assert status == ["200 OK"], body
            return json.loads(body)

        [listed] = ask("/api/studies")["study_summaries"]
        assert listed["study_name"] == "toy"
        detail = ask(f"/api/studies/{listed['study_id']}")
    assert len(detail["trials"]) == len(study.trials)
    assert {item["name"] for item in detail["union_search_space"]} == set().union(
        *(item.draft.params for item in study.trials if item.draft.params)
    )
