"""The list of studies."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from autopeft.objectives import hypervolume, to_maximization
from autopeft.store import StudyOverview, StudyReader
from autopeft.study import TrialKind, TrialState

from ._front import best_number, constraints_of, front_numbers
from ._growth import reference_values
from ._trials import trials_frame

#: Columns of `studies_frame`, in order.
STUDY_COLUMNS = (
    "study",
    "task",
    "backbone",
    "budget",
    "budget_parameters",
    "state",
    *(state.value.lower() for state in TrialState),
    "metric",
    "best",
    "baseline",
    "gain",
    "hypervolume",
    "time_spent_s",
    "last_activity",
)


def study_facts(reader: StudyReader, overview: StudyOverview) -> dict[str, object]:
    """One row of `studies_frame`: `STUDY_COLUMNS` of one study.

    ``best`` and ``baseline`` are the best search trial and baseline within the budget by the first objective on the
    search split, ``gain`` is how much better the first is (positive is better, whatever the direction), ``hypervolume``
    is the one that the commands and the report show.
    """
    spec = overview.spec
    names = [item.name for item in spec.objectives]
    wanted = [*names, *(item.name for item in constraints_of(spec))]
    frame = trials_frame(reader, overview.name, wanted, ("number", "kind", "state", "trainable_parameters"))
    values: dict[str, float | None] = {}
    for key, kind in (("best", TrialKind.SEARCH), ("baseline", TrialKind.BASELINE)):
        number = best_number(frame, spec, kind)
        values[key] = None if number is None else float(frame.loc[frame["number"] == number, names[0]].iloc[0])
    gain = None
    if values["best"] is not None and values["baseline"] is not None:
        gain = spec.objectives[0].sign * (values["best"] - values["baseline"])
    return {
        "study": overview.name,
        "task": str(spec.task.get("name", "")),
        "backbone": str(spec.backbone.get("name", "")),
        "budget": spec.budget_text,
        "budget_parameters": spec.budget,
        "state": study_state(overview),
        **{state.value.lower(): count for state, count in overview.n_trials.items()},
        "metric": names[0],
        **values,
        "gain": gain,
        "hypervolume": _volume(frame, overview),
        "time_spent_s": overview.time_spent_s,
        "last_activity": overview.last_activity_at,
    }


def studies_frame(
    overviews: Sequence[StudyOverview], facts: Callable[[StudyOverview], dict[str, object]]
) -> pd.DataFrame:
    """Every study, the latest activity first.

    Args:
        overviews: The studies.
        facts: Gives a study's row; `study_facts`, perhaps remembered by `StudyOverview.token`.
    """
    rows = [{**facts(item), "last_activity": item.last_activity_at} for item in overviews]
    frame = pd.DataFrame(rows, columns=list(STUDY_COLUMNS))
    for name in ("best", "baseline", "gain", "hypervolume", "time_spent_s"):
        frame[name] = frame[name].astype(np.float64)
    frame["last_activity"] = pd.to_datetime(frame["last_activity"], utc=True)
    return frame.sort_values(["last_activity", "study"], ascending=[False, True], ignore_index=True)


def study_state(overview: StudyOverview) -> str:
    """``"running"``, ``"waiting"`` (trials wait and no worker has one), ``"finished"`` or ``"empty"``."""
    if overview.n_trials[TrialState.RUNNING]:
        return "running"
    if overview.n_trials[TrialState.WAITING]:
        return "waiting"
    return "finished" if overview.n_trials_total else "empty"


def filtered(
    frame: pd.DataFrame, *, text: str = "", tasks: Sequence[str] = (), states: Sequence[str] = ()
) -> pd.DataFrame:
    """The studies whose name, task or backbone has every word of a text in it, of some tasks, in some states.

    Args:
        frame: `studies_frame`.
        text: Words, any case; empty for all.
        tasks: Tasks wanted; empty for all.
        states: States wanted; empty for all.
    """
    mask = pd.Series(True, index=frame.index)
    searched = (frame["study"] + " " + frame["task"] + " " + frame["backbone"]).astype(str).str.lower()
    for word in text.lower().split():
        mask &= searched.str.contains(word, regex=False).astype(bool)
    if tasks:
        mask &= frame["task"].isin(tasks)
    if states:
        mask &= frame["state"].isin(states)
    return frame[mask]


def _volume(frame: pd.DataFrame, overview: StudyOverview) -> float | None:
    objectives = overview.spec.objectives
    reference = reference_values(frame, overview.spec)
    if reference is None:
        return None
    members = frame[frame["number"].isin(front_numbers(frame, overview.spec))]
    values = members[[item.name for item in objectives]].to_numpy(dtype=np.float64)
    return hypervolume(to_maximization(values, objectives), to_maximization([reference], objectives)[0])
