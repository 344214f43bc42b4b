"""A study as a file: JSON with a schema version, everything the store knows of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from autopeft.configuration import Configuration
from autopeft.exceptions import ConfigurationError, UsageError
from autopeft.store._codec import decode_curve, decode_predictions, encode_curve, encode_predictions
from autopeft.study import (
    Failure,
    Fidelity,
    Measurement,
    Rung,
    Study,
    StudySpec,
    Trial,
    TrialDraft,
    TrialKind,
    TrialState,
)

#: Version of the file's content; grows when a key changes its meaning or goes away.
ARCHIVE_VERSION = 1
_FORMAT = "autopeft-study"


def archive_study(study: Study) -> dict[str, Any]:
    """A study as a JSON-ready document; `restore_study` is its inverse."""
    return {
        "format": _FORMAT,
        "schema_version": ARCHIVE_VERSION,
        "spec": study.spec.to_dict(),
        "attributes": dict(study.attributes),
        "trials": [_trial(item) for item in study.trials],
    }


def restore_study(document: Any, source: str) -> Study:
    """Rebuild a study from `archive_study`.

    Args:
        document: Parsed JSON.
        source: What messages call it.

    Raises:
        UsageError: If it is no such document, one of another schema version, or damaged.
    """
    if not isinstance(document, Mapping) or document.get("format") != _FORMAT:
        raise UsageError(f"{source} is JSON, but no study; write one with `autopeft db export STUDY -o FILE`.")
    version = document.get("schema_version")
    if version != ARCHIVE_VERSION:
        raise UsageError(
            f"{source} has schema version {version!r}, but this autopeft reads version {ARCHIVE_VERSION}; export the "
            "study again with this version, or install the version that wrote it."
        )
    try:
        return Study(
            spec=StudySpec.from_dict(document["spec"]),
            trials=tuple(_restored(item) for item in document["trials"]),
            attributes=dict(document["attributes"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, ConfigurationError) as error:
        raise UsageError(f"{source} is a damaged study: {type(error).__name__}: {error}.") from error


def read_archive(path: Path) -> Study:
    """Read a study from a file.

    Raises:
        UsageError: If it cannot be read, is no JSON, or no study of this schema version.
    """
    try:
        text = path.expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no JSON: {error.reason} at byte {error.start}.") from error
    try:
        document = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON: {error}.") from error
    return restore_study(document, str(path))


def _trial(trial: Trial) -> dict[str, Any]:
    draft, failure = trial.draft, trial.failure
    return {
        "number": trial.number,
        "kind": trial.kind.value,
        "configuration": trial.configuration.to_dict(),
        "trainable_parameters": draft.trainable_parameters,
        "fidelity": draft.fidelity.to_dict(),
        "seed": draft.seed,
        "params": None if draft.params is None else dict(draft.params),
        "label": draft.label,
        "parent": draft.parent,
        "state": trial.state.value,
        "measurements": [_measurement(item) for item in trial.measurements],
        "curve": json.loads(encode_curve(trial.curve)),
        "failure": None if failure is None else [failure.reason, failure.message, failure.traceback],
        "attempts": trial.attempts,
        "worker": trial.worker,
        "created_at": _time(trial.created_at),
        "started_at": _time(trial.started_at),
        "finished_at": _time(trial.finished_at),
        "notes": dict(trial.notes),
    }


def _restored(data: Mapping[str, Any]) -> Trial:
    return Trial(
        number=data["number"],
        draft=TrialDraft(
            kind=TrialKind(data["kind"]),
            configuration=Configuration.from_dict(data["configuration"]),
            trainable_parameters=data["trainable_parameters"],
            fidelity=Fidelity(**data["fidelity"]),
            seed=data["seed"],
            params=data["params"],
            label=data["label"],
            parent=data["parent"],
        ),
        state=TrialState(data["state"]),
        measurements=tuple(_restored_measurement(item) for item in data["measurements"]),
        curve=decode_curve(json.dumps(data["curve"])),
        failure=None if data["failure"] is None else Failure(**dict(zip(_FAILURE, data["failure"], strict=True))),
        attempts=data["attempts"],
        worker=data["worker"],
        created_at=_moment(data["created_at"]),
        started_at=_moment(data["started_at"]),
        finished_at=_moment(data["finished_at"]),
        notes=data["notes"],
    )


_FAILURE = ("reason", "message", "traceback")


def _measurement(item: Measurement) -> dict[str, Any]:
    predictions = encode_predictions(item.predictions)
    rung = item.rung
    return {
        "split": item.split,
        "fidelity": item.fidelity.to_dict(),
        "seed": item.seed,
        "metrics": dict(item.metrics),
        "costs": dict(item.costs),
        "environment": dict(item.environment),
        "curve": json.loads(encode_curve(item.curve)),
        "predictions": None if predictions is None else base64.b64encode(predictions).decode(),
        "rung": None if rung is None else [rung.step, rung.n_steps, rung.n_examples],
    }


def _restored_measurement(data: Mapping[str, Any]) -> Measurement:
    predictions, rung = data["predictions"], data["rung"]
    return Measurement(
        split=data["split"],
        fidelity=Fidelity(**data["fidelity"]),
        seed=data["seed"],
        metrics=data["metrics"],
        costs=data["costs"],
        environment=data["environment"],
        curve=decode_curve(json.dumps(data["curve"])),
        predictions=decode_predictions(None if predictions is None else base64.b64decode(predictions)),
        rung=None if rung is None else Rung(step=rung[0], n_steps=rung[1], n_examples=rung[2]),
    )


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
