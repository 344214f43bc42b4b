"""A study's trials as a frame: one row per trial, one column per value; what was not measured is missing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from autopeft.objectives import COSTS, Direction, Objective
from autopeft.store import TRIAL_COLUMNS, StudyReader
from autopeft.study import StudySpec, TrialKind, TrialState

#: Columns of `trials_frame` beside the values.
COLUMNS = TRIAL_COLUMNS


def trials_frame(
    reader: StudyReader, study_name: str, names: Sequence[str], columns: Sequence[str] = COLUMNS
) -> pd.DataFrame:
    """Every trial of a study by number, with values of the search split.

    Args:
        reader: The database.
        study_name: Study.
        names: Metrics and costs wanted as columns; ``trainable_parameters`` is always there.
        columns: Those of `COLUMNS` that are wanted; number, kind, state and trainable_parameters among them.

    Returns:
        `columns`, ``rung_share`` (of the run's steps at which a trial was stopped that never came to its end; missing
        for the others), and one float column per name.
    """
    kept = [name for name in COLUMNS if name in columns]
    frame = pd.DataFrame(reader.trials(study_name, kept), columns=kept)
    wanted = [name for name in dict.fromkeys(names) if name != "trainable_parameters"]
    measured: dict[int, tuple[float | None, ...]] = {}
    for number, step, n_steps, _seed, *values in reader.values(study_name, wanted):
        # A trial's last measurement stands last: the end of the run, else the highest rung.
        share = None if step is None or n_steps is None else step / n_steps
        measured[number] = (share, *values)
    empty = (None,) * (1 + len(wanted))
    rows = [measured.get(number, empty) for number in frame["number"]]
    values_frame = pd.DataFrame(rows, columns=["rung_share", *wanted], index=frame.index, dtype=np.float64)
    found = pd.concat([frame, values_frame], axis=1)
    # A trial that was pruned, continued and came to its end stands for its end.
    found.loc[found["state"] != TrialState.PRUNED.value, "rung_share"] = np.nan
    for name in ("created_at", "started_at", "finished_at"):
        if name in found:
            found[name] = pd.to_datetime(found[name], utc=True)
    types = {"trainable_parameters": "int64", "duration_s": "float64", "parent": "Int64"}
    return found.astype({name: kind for name, kind in types.items() if name in found})


def value_names(reader: StudyReader, study_name: str, spec: StudySpec) -> tuple[Objective, ...]:
    """What can be an axis: the objectives, then every other metric and cost that a trial of the study has.

    Of a value whose direction nothing in the study says (see `has_direction`), it is a guess and must not be shown.
    """
    metrics, costs = reader.value_names(study_name)
    declared = _declared(spec)
    # Dotted names are diagnostics of single sites, hundreds of them.
    others = [Objective(name=name, direction=Direction.MAXIMIZE) for name in (*metrics, *costs) if "." not in name]
    found = (*spec.objectives, *others, COSTS["trainable_parameters"])
    return tuple({item.name: declared.get(item.name, item) for item in found}.values())


def has_direction(spec: StudySpec, name: str) -> bool:
    """Whether the study says which way a value is better: it is an objective, a reward or a cost."""
    return name in _declared(spec)


def _declared(spec: StudySpec) -> dict[str, Objective]:
    return {**COSTS, **{item.name: item for item in (*spec.secondary, *spec.objectives)}}


def worth_listing(frame: pd.DataFrame, objective: Objective, limit: int) -> list[int]:
    """Numbers of the trials in a list of at most about `limit`: all, or front, baselines, the best and the newest.

    Args:
        frame: `add_roles`.
        objective: What is best.
        limit: Most trials wanted, >= 2; front and baselines are always among them.
    """
    numbers = frame["number"].tolist()
    if len(numbers) <= limit:
        return numbers
    told = frame.loc[frame["role"].isin(["front", "baseline"]), "number"]
    values = (objective.sign * frame.set_index("number")[objective.name]).dropna().nlargest(limit // 2)
    return sorted({*told, *values.index, *numbers[-(limit // 4) :]})


def measured(frame: pd.DataFrame, names: Sequence[str], *kinds: TrialKind) -> pd.DataFrame:
    """Completed trials of some kinds that have all of some values."""
    mask = frame["kind"].isin([kind.value for kind in kinds]) & (frame["state"] == TrialState.COMPLETE.value)
    return frame[mask & frame[list(names)].notna().all(axis=1)]
