"""A study as an Optuna study, so that optuna-dashboard and Optuna's own plots open it."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState
from sqlalchemy.exc import SQLAlchemyError

from autopeft.configuration import expand, parse_search_space
from autopeft.exceptions import StoreError, UsageError
from autopeft.samplers import optuna_distribution
from autopeft.study import REPORT_SPLIT, CurvePoint, Study, Trial, TrialKind, TrialState

_STATES = {
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
    TrialState.RUNNING: OptunaState.RUNNING,
    TrialState.WAITING: OptunaState.WAITING,
}


def export_study(study: Study, storage: str, *, name: str | None = None) -> int:
    """Write a study into an Optuna storage.

    Every trial of every kind is there, under its own number, with its params and their distributions, its values in
    the study's directions, and as user attributes what Optuna has no place for: kind, label, parent, configuration,
    parameter count, seed, fidelity, all metrics and costs, failure, notes. With one objective the learning curve
    becomes Optuna's intermediate values; with several Optuna allows none, and it is a user attribute. A complete trial
    in which an objective was not measured is FAIL there, because Optuna's COMPLETE needs every value; the attribute
    ``state`` says what it is here. Confirmations repeat the configurations of search trials with other seeds.

    Args:
        study: The study.
        storage: An SQLAlchemy URL, or the path of an SQLite file, which is made where it does not exist.
        name: Name of the Optuna study; None for the study's own.

    Returns:
        Number of trials written.

    Raises:
        UsageError: If the storage has a study of that name.
        StoreError: If the storage cannot be used.
    """
    spec = study.spec
    title = name or spec.name
    trials = _frozen_trials(study)
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        target = optuna.create_study(
            storage=_url(storage), study_name=title, directions=[item.direction.value for item in spec.objectives]
        )
        for key, value in _study_attributes(study).items():
            target.set_user_attr(key, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            target.set_metric_names([item.name for item in spec.objectives])
        target.add_trials(trials)
    except DuplicatedStudyError as error:
        raise UsageError(
            f"the Optuna storage {_shown(storage)} has a study {title!r} already; choose another name or storage, or "
            "remove it there first (`optuna delete-study`)."
        ) from error
    except (SQLAlchemyError, ImportError, OSError) as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        raise StoreError(f"the Optuna storage {_shown(storage)} cannot be used: {reason}.") from error
    finally:
        optuna.logging.set_verbosity(level)
    return len(trials)


def _url(storage: str) -> str:
    """An URL as it is, a path as that of an SQLite file."""
    return storage if "://" in storage else f"sqlite:///{Path(storage).expanduser()}"


def _shown(storage: str) -> str:
    """The storage without its password."""
    return re.sub(r"(://[^/?#@]*?:)[^/?#]*@", r"\1***@", storage)


def _study_attributes(study: Study) -> dict[str, Any]:
    summary = study.attributes.get("summary") or {}
    facts = {"spec": study.spec.to_dict(), "command": study.attributes.get("command")}
    facts |= {"headline": summary.get("headline"), "recommended": summary.get("recommended")}
    return {f"autopeft:{key}": value for key, value in facts.items() if value is not None}


def _frozen_trials(study: Study) -> list[FrozenTrial]:
    space = parse_search_space(dict(study.spec.space), source=f"of study {study.spec.name}")
    parameters = expand(space, int(study.spec.backbone["n_layers"]))
    known = {item.name: optuna_distribution(item) for item in parameters}
    return [_frozen(study, item, known) for item in study.trials]


def _frozen(study: Study, trial: Trial, known: Mapping[str, BaseDistribution]) -> FrozenTrial:
    objectives = study.spec.objectives
    params = dict(trial.draft.params or {})
    values = [value for item in objectives if (value := trial.value(item.name)) is not None]
    state = _STATES[trial.state]
    if len(values) < len(objectives) or state not in (OptunaState.COMPLETE, OptunaState.PRUNED):
        values = []
        state = OptunaState.FAIL if state is OptunaState.COMPLETE else state
    started = None if state is OptunaState.WAITING else _local(trial.started_at or trial.created_at)
    attributes = _attributes(trial)
    intermediate = {}
    if len(objectives) == 1:
        intermediate = _intermediate(trial, objectives[0].name)
    elif trial.curve:
        attributes["curve"] = [_point(item) for item in trial.curve]
    return FrozenTrial(
        number=trial.number,
        trial_id=-1,
        state=state,
        value=None,
        values=values or None,
        datetime_start=started,
        datetime_complete=_local(trial.finished_at or trial.started_at) if state.is_finished() else None,
        params=params,
        distributions={key: known[key] for key in params},
        user_attrs=attributes,
        system_attrs={},
        intermediate_values=intermediate,
    )


def _attributes(trial: Trial) -> dict[str, Any]:
    """What Optuna has no place for; what is not known is absent."""
    draft, measurement = trial.draft, trial.measurement()
    report = trial.measurement(REPORT_SPLIT)
    facts = {
        "kind": trial.kind.value,
        "state": trial.state.value,
        "label": draft.label,
        "parent": draft.parent,
        "configuration": trial.configuration.describe(),
        "fingerprint": trial.configuration.fingerprint,
        "trainable_parameters": draft.trainable_parameters,
        "seed": draft.seed,
        "fidelity": draft.fidelity.to_dict(),
        "metrics": None if measurement is None else dict(measurement.metrics),
        "costs": None if measurement is None else dict(measurement.costs),
        "report_metrics": None if report is None else dict(report.metrics),
        "failure": None if trial.failure is None else f"{trial.failure.reason}: {trial.failure.message}",
        "notes": json.loads(json.dumps(dict(trial.notes))) or None,
        "worker": trial.worker,
    }
    if trial.kind is TrialKind.CONFIRMATION:
        facts["label"] = draft.label or f"confirmation of trial {draft.parent}"
    return {key: value for key, value in facts.items() if value is not None}


def _intermediate(trial: Trial, name: str) -> dict[int, float]:
    return {item.step: item.metrics[name] for item in trial.curve if name in item.metrics}


def _point(item: CurvePoint) -> dict[str, Any]:
    return {"step": item.step, "epoch": item.epoch, "wall_time_s": item.wall_time_s, "metrics": dict(item.metrics)}


def _local(moment: datetime | None) -> datetime:
    """Optuna keeps local times without a zone; a time that the store did not keep is that of the export."""
    found = moment or datetime.now(UTC)
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).astimezone().replace(tzinfo=None)
