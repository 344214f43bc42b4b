"""Is the search well? Each question gets an answer, and where that is no, something to do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd

from autopeft.store import LOST_WORKER, LeaseFacts
from autopeft.study import StudySpec, TrialKind, TrialState

from ._front import front_numbers, seed_intervals
from ._growth import hypervolume_frame
from ._texts import counted

#: Above this share of failed trials something is wrong with more than single configurations.
MOST_FAILURES = 0.2
#: A value within this share of a parameter's range from its end stands at the edge.
EDGE = 0.02
_WAIT = "wait for more trials."


class Status(StrEnum):
    """What a card says at a glance."""

    GOOD = "good"
    WARNING = "warning"
    UNKNOWN = "not known"


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One question about a search.

    Args:
        title: The question.
        status: The answer at a glance.
        finding: What was found, in a sentence or two.
        advice: What to do about it; empty where nothing is to be done, or can be done yet.
    """

    title: str
    status: Status
    finding: str
    advice: str = ""


def health_cards(
    frame: pd.DataFrame, spec: StudySpec, points: pd.DataFrame, leases: Sequence[LeaseFacts], now: datetime
) -> list[Card]:
    """Every card, in a fixed order.

    Args:
        frame: `trials_frame` with a column per objective.
        spec: The study's settings.
        points: `params_frame` of the front's members.
        leases: Held and lost claims.
        now: The time, to tell which leases have run out.
    """
    return [
        failures(frame),
        stagnation(frame, spec),
        edges(points, spec),
        seeds(frame, spec),
        duplicates(frame),
        workers(frame, leases, now),
    ]


def failures(frame: pd.DataFrame) -> Card:
    """Do too many trials fail?"""
    title = "Do trials fail?"
    finished = frame[frame["state"].isin([item.value for item in TrialState if item.is_finished])]
    failed = finished[finished["state"] == TrialState.FAILED.value]
    if finished.empty:
        return Card(title=title, status=Status.UNKNOWN, finding="No trial has finished yet.", advice=_WAIT)
    share = len(failed) / len(finished)
    finding = f"{len(failed)} of {len(finished)} finished trials failed ({share:.0%})."
    if failed.empty:
        return Card(title=title, status=Status.GOOD, finding=finding)
    reasons = failed["failure_reason"].value_counts()
    finding += " Reasons: " + ", ".join(f"{reason} ({count})" for reason, count in reasons.items()) + "."
    if share <= MOST_FAILURES:
        return Card(title=title, status=Status.GOOD, finding=finding)
    advice = {
        "out_of_memory": "Lower --batch-size or --max-tokens, or give the worker a larger device.",
        "divergence": "Lower the upper end of learning_rate in the search space.",
        LOST_WORKER: "Look at the workers' logs: processes that are killed are often out of memory.",
    }.get(str(reasons.index[0]), "Read the tracebacks on the page Trials; the most frequent reason comes first.")
    return Card(title=title, status=Status.WARNING, finding=finding, advice=advice)


def stagnation(frame: pd.DataFrame, spec: StudySpec) -> Card:
    """Does the front still move?"""
    title = "Does the front still move?"
    growth = hypervolume_frame(frame, spec)
    if growth.empty:
        return Card(title=title, status=Status.UNKNOWN, finding="No search trial has been measured yet.", advice=_WAIT)
    final = growth["hypervolume"].iloc[-1]
    since = int((growth["hypervolume"] >= final).sum()) - 1
    patience = max(20, len(growth) // 4)
    ago = "with the newest trial" if since == 0 else f"{counted(since, 'trial')} ago"
    finding = f"The front last changed {ago}, of {len(growth)} that were measured."
    if since < patience:
        return Card(title=title, status=Status.GOOD, finding=finding)
    advice = (
        "More trials of this search will probably not help. Stop it, or widen the search space, raise the budget, or "
        "train longer with --epochs or --train-examples."
    )
    return Card(title=title, status=Status.WARNING, finding=finding, advice=advice)


def edges(points: pd.DataFrame, spec: StudySpec) -> Card:
    """Do the winners stand at the edge of the space?"""
    title = "Are the winners inside the search space?"
    bounds = _bounds(spec)
    declared = {name: spec.space["parameters"][name]["type"] for name in bounds}
    found = []
    for name, (low, high, is_log) in bounds.items():
        values = points[name].dropna() if name in points else pd.Series(dtype=float)
        if len(values) < 3:
            continue
        scaled = [_position(float(value), low, high, is_log) for value in values]
        for end, at_end in (
            ("low", [item <= EDGE for item in scaled]),
            ("high", [item >= 1 - EDGE for item in scaled]),
        ):
            # Below a rank or a width of one there is nothing.
            is_floor = end == "low" and low == 1 and declared[name] == "int"
            if sum(at_end) > len(at_end) / 2 and not is_floor:
                found.append(
                    f"{name} at its {end} end {low if end == 'low' else high:g} ({sum(at_end)} of {len(values)})"
                )
    if not bounds or len(points) < 3:
        finding = "Fewer than three members of the front can be compared."
        return Card(title=title, status=Status.UNKNOWN, finding=finding, advice=_WAIT)
    if not found:
        finding = f"No number of the space stands at its end in most of the front's {len(points)} members."
        return Card(title=title, status=Status.GOOD, finding=finding)
    return Card(
        title=title,
        status=Status.WARNING,
        finding="Most members of the front have " + "; ".join(found) + ".",
        advice="Better configurations may lie outside: widen these parameters in a copy of the search space (--space).",
    )


def seeds(frame: pd.DataFrame, spec: StudySpec) -> Card:
    """Do seeds agree more than the front's members differ?"""
    title = "Do seeds agree?"
    name = spec.objectives[0].name
    spread = seed_intervals(frame, name)
    members = frame[frame["number"].isin(front_numbers(frame, spec))]
    if spread.empty:
        finding = "No trial has been repeated with other seeds yet."
        advice = "Let the search come to its end: it repeats the best trials then, with --seeds seeds each."
        return Card(title=title, status=Status.UNKNOWN, finding=finding, advice=advice)
    half = float((spread["high"] - spread["low"]).mean() / 2)
    gap = float(members[name].max() - members[name].min()) if len(members) else 0.0
    finding = (
        f"Repeated with other seeds, {name} is known to about {half:.4f} either way (95 %, mean over "
        f"{counted(len(spread), 'trial')}); from the front's worst member to its best it changes by {gap:.4f}."
    )
    if half <= gap / 2 or len(members) < 2:
        return Card(title=title, status=Status.GOOD, finding=finding)
    advice = (
        "Members of the front that are this close cannot be told apart: prefer the cheaper one, or repeat them "
        "with more seeds (--seeds) or measure on more examples."
    )
    return Card(title=title, status=Status.WARNING, finding=finding, advice=advice)


def duplicates(frame: pd.DataFrame) -> Card:
    """Is the same configuration trained again?"""
    title = "Is anything trained twice?"
    rows = frame[frame["kind"].isin([TrialKind.SEARCH.value, TrialKind.BASELINE.value])]
    repeated = rows[rows.duplicated("fingerprint", keep=False)]
    if rows.empty:
        return Card(title=title, status=Status.UNKNOWN, finding="There are no trials yet.", advice=_WAIT)
    if repeated.empty:
        return Card(
            title=title,
            status=Status.GOOD,
            finding=f"{counted(len(rows), 'configuration')}, none of them trained twice.",
        )
    groups = repeated.groupby("fingerprint")["number"].apply(list)
    shown = "; ".join(", ".join(map(str, numbers)) for numbers in sorted(groups)[:3])
    n = len(repeated) - len(groups)
    return Card(
        title=title,
        status=Status.WARNING if n > 0.05 * len(rows) else Status.GOOD,
        finding=f"{n} of {len(rows)} trials repeat a configuration at another fidelity or seed (trials {shown}).",
        advice="If you did not ask for repetitions, the space may be nearly exhausted: widen it."
        if n > 0.05 * len(rows)
        else "",
    )


def workers(frame: pd.DataFrame, leases: Sequence[LeaseFacts], now: datetime) -> Card:
    """Are workers lost?"""
    title = "Are the workers alive?"
    lost = [item for item in leases if item.outcome == "lost"]
    expired = [item for item in leases if item.outcome is None and item.expires_at < now]
    held = [item for item in leases if item.outcome is None]
    if not lost and not expired:
        at_work = f" {counted(len(held), 'trial')} {'is' if len(held) == 1 else 'are'} being trained."
        finding = "No worker was lost." + (at_work if held else "")
        return Card(title=title, status=Status.GOOD, finding=finding)
    parts = []
    if lost:
        numbers = ", ".join(str(number) for number in sorted({item.number for item in lost})[:5])
        parts.append(f"{counted(len(lost), 'time')} a worker was lost (trials {numbers}); its trial was put back.")
    if expired:
        silent = max((now - item.heartbeat_at).total_seconds() for item in expired)
        parts.append(f"Not heard of for up to {silent / 60:.0f} min: {counted(len(expired), 'running trial')}.")
    return Card(
        title=title,
        status=Status.WARNING,
        finding=" ".join(parts),
        advice="Run the search's command again: it puts the trials of dead workers back and goes on. "
        "If it happens again, the machine may be out of memory.",
    )


def _bounds(spec: StudySpec) -> dict[str, tuple[float, float, bool]]:
    """Ends of the space's numbers, and whether they are searched by logarithm."""
    declared: Any = spec.space.get("parameters", {})
    found = {}
    for name, item in declared.items() if isinstance(declared, Mapping) else ():
        if isinstance(item, Mapping) and item.get("type") in ("int", "float"):
            low, high = item.get("low"), item.get("high")
            if isinstance(low, int | float) and isinstance(high, int | float) and low < high:
                found[str(name)] = (float(low), float(high), bool(item.get("log")))
    return found


def _position(value: float, low: float, high: float, is_log: bool) -> float:
    """Where a value stands between its ends, in [0, 1]."""
    if is_log and low > 0 and value > 0:
        return float(np.clip(math.log(value / low) / math.log(high / low), 0, 1))
    return float(np.clip((value - low) / (high - low), 0, 1))
