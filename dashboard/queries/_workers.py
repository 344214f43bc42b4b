"""Who trains: the workers that the database knows, what each does, and which refuse a study and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from autopeft.export import format_value
from autopeft.store import LOCAL_EXECUTOR, DriverLease, StudyOverview, WorkerRecord, WorkerState
from autopeft.study import TrialState

from ._health import Card, Status
from ._texts import counted

#: Columns of `workers_frame`, in order.
WORKER_COLUMNS = ("worker", "machine", "does", "this study", "heard_of", "has", "versions")
_TITLE = "Is somebody there to train?"
_START = "Start workers on machines that reach this database: autopeft worker --db URL."


def serving(records: Sequence[WorkerRecord], overview: StudyOverview, driver: DriverLease | None) -> Card:
    """Do workers serve this study, and if not, why?

    Args:
        records: All workers.
        overview: The study.
        driver: Who drives it.
    """
    name = overview.name
    live = [item for item in records if not item.is_expired]
    refusals = {item.facts.id: item.facts.refusals[name] for item in live if name in item.facts.refusals}
    is_driven = driver is not None and not driver.is_expired
    if driver is not None and is_driven and driver.executor == LOCAL_EXECUTOR:
        finding = f"The process that drives the search trains its trials itself ({driver.holder})."
        return Card(title=_TITLE, status=Status.GOOD, finding=finding)
    if refusals:
        is_open = is_driven or bool(overview.n_trials[TrialState.WAITING] or overview.n_trials[TrialState.RUNNING])
        return Card(
            title=_TITLE,
            status=Status.WARNING if is_open else Status.GOOD,
            finding=f"{len(refusals)} of {counted(len(live), 'worker')} "
            f"{'refuses' if len(refusals) == 1 else 'refuse'} this study: {_by_reason(refusals)}."
            f"{'' if is_open else ' Nothing is left to train.'}",
            advice="Put right on these machines what the reason names, or start workers elsewhere; those that are "
            "there ask again every minute."
            if is_open
            else "",
        )
    if live:
        return Card(title=_TITLE, status=Status.GOOD, finding=_at_work(live, name))
    if is_driven:
        gone = f" {counted(len(records), 'worker')} of the last day {'is' if len(records) == 1 else 'are'} gone."
        return Card(
            title=_TITLE,
            status=Status.WARNING,
            finding=f"The search asks for workers, and none is there.{gone if records else ''}",
            advice=_START,
        )
    finding = "No process drives this search now, and no worker is there."
    if overview.n_trials[TrialState.WAITING] or overview.n_trials[TrialState.RUNNING]:
        advice = "Run the search's command again to go on."
        return Card(title=_TITLE, status=Status.WARNING, finding=f"{finding} It has unfinished trials.", advice=advice)
    return Card(title=_TITLE, status=Status.GOOD, finding=f"{finding} Nothing is left to train.")


def workers_frame(records: Sequence[WorkerRecord], study_name: str) -> pd.DataFrame:
    """Every worker: those that refuse the study first, then those that are there, then those that are gone.

    Args:
        records: All workers.
        study_name: The study that ``this study`` is about.

    Returns:
        Columns `WORKER_COLUMNS`: its name, its machine, what it does, whether it would train the study's trials (with
        the reason if not), when it was last heard of, what it has, and versions of what decides about that.
    """
    rows = [
        {
            "worker": item.facts.id,
            "machine": item.facts.host,
            "does": _does(item),
            "this study": _toward(item, study_name),
            "heard_of": item.heartbeat_at,
            "has": _has(item.facts.resources),
            "versions": ", ".join(f"{name} {version}" for name, version in sorted(item.facts.versions.items())),
        }
        for item in sorted(records, key=lambda item: (item.is_expired, study_name not in item.facts.refusals))
    ]
    frame = pd.DataFrame(rows, columns=list(WORKER_COLUMNS))
    frame["heard_of"] = pd.to_datetime(frame["heard_of"], utc=True)
    return frame


def _does(item: WorkerRecord) -> str:
    if item.is_expired:
        return "gone"
    facts = item.facts
    if facts.state is not WorkerState.WORKING or facts.study is None:
        return facts.state.value
    numbers = ", ".join(map(str, facts.trials))
    return f"trains {'trial' if len(facts.trials) == 1 else 'trials'} {numbers} of {facts.study}"


def _toward(item: WorkerRecord, study_name: str) -> str:
    reason = item.facts.refusals.get(study_name)
    if reason is not None:
        return f"refuses it: {reason}"
    if item.is_expired:
        return ""
    return "works on it" if item.facts.study == study_name else "would serve it"


def _has(resources: Mapping[str, Any]) -> str:
    """Cores, memory and device; whatever is not said or of another kind is left out."""
    parts = []
    for name, noun in (("cpus", "core"), ("cohort", "trial at once")):
        value = resources.get(name)
        if isinstance(value, int):
            parts.append(counted(value, noun).replace("trial at onces", "trials at once"))
    for name, what in (("memory_bytes", "memory"), ("gpu_memory_bytes", "on the GPU")):
        value = resources.get(name)
        if isinstance(value, int | float):
            parts.append(f"{format_value(value, 'bytes')} {what}")
    gpu = resources.get("gpu")
    return ", ".join([*parts, *([gpu] if isinstance(gpu, str) else [])])


def _by_reason(refusals: Mapping[str, str]) -> str:
    names: dict[str, list[str]] = {}
    for worker, reason in refusals.items():
        names.setdefault(reason.rstrip("."), []).append(worker)
    return "; ".join(
        f"{reason} ({', '.join(workers[:3])}{', ...' if len(workers) > 3 else ''})" for reason, workers in names.items()
    )


def _at_work(live: Sequence[WorkerRecord], study_name: str) -> str:
    here = sum(item.facts.study == study_name for item in live)
    elsewhere = sum(item.facts.study not in (None, study_name) for item in live)
    parts = [
        f"{n} {what}"
        for n, what in (
            (here, "on this study"),
            (elsewhere, "on others"),
            (len(live) - here - elsewhere, "on none"),
        )
        if n
    ]
    return f"{counted(len(live), 'worker')}: {', '.join(parts)}. None refuses this study."
