"""Studies and trials as JSON documents, for the command line and the service: built here, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import autopeft
from autopeft.export._result import StudyResult, environment_values, report_value
from autopeft.pruners import PRUNING_ATTRIBUTE
from autopeft.study import CurvePoint, Measurement, Study, Trial, TrialKind, TrialState

if TYPE_CHECKING:
    from autopeft.store import StudySummary

#: Version of every JSON document; grows when a key changes its meaning or goes away.
SCHEMA_VERSION = 1


def trials_document(study: Study, trials: Sequence[Trial] | None = None) -> dict[str, Any]:
    """A study's trials.

    Args:
        study: The study.
        trials: Which of them; None for all.
    """
    chosen = study.trials if trials is None else trials
    return {"study": study.spec.name, **_context(study), "trials": [trial_document(study, item) for item in chosen]}


def front_document(study: Study) -> dict[str, Any]:
    """A study's front, its baselines and its result."""
    result = StudyResult.of(study)
    front = result.front
    reference = None
    if front.reference_point is not None:
        names = [item.name for item in front.objectives]
        reference = dict(zip(names, front.reference_point, strict=True))
    return {
        "study": study.spec.name,
        **_context(study),
        "trials": [trial_document(study, item) for item in front.trials],
        "hypervolume": front.hypervolume,
        "reference_point": reference,
        "baselines": [trial_document(study, item) for item in study.of_kind(TrialKind.BASELINE)],
        "pruning": study.attributes.get(PRUNING_ATTRIBUTE),
        "recommended": _number(result.recommended),
        "best_baseline": _number(result.best_baseline),
        "trial_to_use": _number(result.trial_to_use),
        "knee": _number(front.knee()),
        "headline": result.headline,
        "difference": None if result.difference is None else dict(result.difference),
        "confirmed": [dict(row) for row in result.confirmed],
        "is_final": result.is_final,
    }


def status_document(study: Study, summary: StudySummary, url: str) -> dict[str, Any]:
    """Where a study is."""
    result = StudyResult.of(study)
    best = result.recommended
    return {
        "study": study.spec.name,
        **_context(study),
        "counts": status_counts(study),
        "best": None if best is None else trial_document(study, best),
        "headline": result.headline,
        "hypervolume": result.front.hypervolume,
        "pruning": study.attributes.get(PRUNING_ATTRIBUTE),
        "is_final": result.is_final,
        "created_at": _time(summary.created_at),
        "last_activity_at": _time(summary.last_activity_at),
        "database": url,
    }


def studies_document(studies: Sequence[StudySummary], url: str) -> dict[str, Any]:
    """All studies of a database."""
    return {
        "database": url,
        "studies": [
            {
                "study": item.name,
                "task": item.spec.task.get("name"),
                "backbone": item.spec.backbone.get("name"),
                "budget": item.spec.budget,
                "counts": {state.value: count for state, count in item.n_trials.items()},
                "created_at": _time(item.created_at),
                "last_activity_at": _time(item.last_activity_at),
            }
            for item in studies
        ],
    }


def report_document(study: Study) -> dict[str, Any]:
    """A study's report: all that `front_document` says, then every trial, the failures, and how to repeat it.

    ``front``, ``baselines``, ``trials`` and ``failures`` are lists of `trial_document`; ``reproducibility`` holds the
    command, the study's whole settings, every environment fact with all the values it took, and when it was done.
    """
    front = front_document(study)
    trials = study.trials
    return {
        **front,
        "front": front["trials"],
        **trials_document(study),
        "failures": [trial_document(study, item) for item in trials if item.state is TrialState.FAILED],
        "reproducibility": {
            "command": study.attributes.get("command"),
            "spec": study.spec.to_dict(),
            "environment": environment_values(study),
            "first_started_at": _time(min((item.started_at for item in trials if item.started_at), default=None)),
            "last_finished_at": _time(max((item.finished_at for item in trials if item.finished_at), default=None)),
            "written_at": _time(datetime.now(UTC)),
            "autopeft_version": autopeft.__version__,
        },
    }


def show_document(study: Study, trial: Trial) -> dict[str, Any]:
    """One trial with everything that is known of it."""
    return {
        "study": study.spec.name,
        **_context(study),
        "trial": {
            **trial_document(study, trial),
            "measurements": [_measurement(item) for item in trial.measurements],
            "curve": [_point(item) for item in trial.curve],
            "notes": dict(trial.notes),
        },
    }


def trial_document(study: Study, trial: Trial) -> dict[str, Any]:
    """One trial as it stands in lists; what was not measured is null."""
    measurement = trial.measurement()
    costs: Mapping[str, float] = {} if measurement is None else measurement.costs
    names = [item.name for item in study.spec.objectives]
    failure, rung = trial.failure, trial.rung
    return {
        "number": trial.number,
        "state": trial.state.value,
        "kind": trial.kind.value,
        "label": trial.draft.label,
        "description": trial.configuration.describe(),
        "values": {name: trial.value(name) for name in names},
        "report_values": {name: report_value(study, trial, name) for name in names},
        "metrics": {} if measurement is None else dict(measurement.metrics),
        "rung": None if rung is None else {**asdict(rung), "share": rung.share},
        "trainable_parameters": trial.draft.trainable_parameters,
        "fingerprint": trial.configuration.fingerprint,
        "params": None if trial.draft.params is None else dict(trial.draft.params),
        "configuration": trial.configuration.to_dict(),
        "failure": None
        if failure is None
        else {"reason": failure.reason, "message": failure.message, "traceback": failure.traceback},
        "seed": trial.draft.seed,
        "fidelity": trial.draft.fidelity.to_dict(),
        "wall_time_s": costs.get("wall_time_s"),
        "peak_memory_bytes": costs.get("peak_memory_bytes"),
        "reward_time_s": costs.get("reward_time_s"),
        "examples_per_s": costs.get("examples_per_s"),
        "tokens_per_s": costs.get("tokens_per_s"),
        "parent": trial.draft.parent,
        "attempts": trial.attempts,
        "worker": trial.worker,
        "created_at": _time(trial.created_at),
        "started_at": _time(trial.started_at),
        "finished_at": _time(trial.finished_at),
    }


def status_counts(study: Study) -> dict[str, dict[str, int]]:
    """Number of trials by kind and state, zeros included."""
    counts = {kind.value: {state.value: 0 for state in TrialState} for kind in TrialKind}
    for trial in study.trials:
        counts[trial.kind.value][trial.state.value] += 1
    return counts


def _context(study: Study) -> dict[str, Any]:
    spec = study.spec
    return {
        "task": spec.task.get("name"),
        "backbone": spec.backbone.get("name"),
        "backbone_parameters": spec.backbone.get("parameters"),
        "budget": spec.budget,
        "budget_text": spec.budget_text,
        "objectives": [
            {"name": item.name, "direction": item.direction.value, "unit": item.unit} for item in spec.objectives
        ],
    }


def _measurement(item: Measurement) -> dict[str, Any]:
    return {
        "split": item.split,
        "fidelity": item.fidelity.to_dict(),
        "seed": item.seed,
        "rung": None if item.rung is None else asdict(item.rung),
        "metrics": dict(item.metrics),
        "costs": dict(item.costs),
        "environment": dict(item.environment),
    }


def _point(item: CurvePoint) -> dict[str, Any]:
    return {
        "step": item.step,
        "epoch": item.epoch,
        "metrics": item.scores,
        "statistics": item.statistics,
        "wall_time_s": item.wall_time_s,
        "n_examples": item.n_examples,
    }


def _number(trial: Trial | None) -> int | None:
    return None if trial is None else trial.number


def _time(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
