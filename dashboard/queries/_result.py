"""What is recommended and why: the search's own summary once it is there, else what the trials say so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from autopeft.export import format_count, format_score, format_share
from autopeft.study import StudySpec, TrialKind

from ._front import best_number, front_numbers, knee_number
from ._texts import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A study's result so far.

    Args:
        recommended: Number of the trial that the search chose, or would choose now; None if none was measured.
        baseline: Number of the best baseline within the budget; None if none was measured.
        knee: Number of the front's member with the best bargain; None for an empty front.
        headline: The result in words, as the report says it.
        reasons: Why a point is marked: one sentence per number.
        difference: Recommended minus best baseline on the report split, with its interval; None before confirmation.
        confirmed: One mapping per trial that was repeated with other seeds.
        covered: Trials that the summary is about, where the search has gone on since; None otherwise.
        is_final: Whether the search has confirmed and summarized exactly these trials.
    """

    recommended: int | None
    baseline: int | None
    knee: int | None
    headline: str
    reasons: Mapping[int, str]
    difference: Mapping[str, Any] | None
    confirmed: tuple[Mapping[str, Any], ...]
    covered: int | None
    is_final: bool


def result_of(frame: pd.DataFrame, spec: StudySpec, attributes: Mapping[str, Any]) -> Result:
    """Read what the search has concluded, or conclude what can be.

    Args:
        frame: `trials_frame` with a column per objective.
        spec: The study's settings.
        attributes: The study's attributes; ``summary`` is written at the end of a search.
    """
    stored = attributes.get("summary")
    known = set(frame["number"])
    covered = None
    knee = knee_number(frame, spec)
    if isinstance(stored, Mapping):
        recommended, baseline = (
            value if isinstance(value := stored.get(key), int) and value in known else None
            for key in ("recommended", "best_baseline")
        )
        finished = not frame["state"].isin(["WAITING", "RUNNING"]).any()
        is_final = bool(finished and stored.get("n_trials") in (None, len(frame)))
        n = stored.get("n_trials")
        covered = n if isinstance(n, int) and n < len(frame) else None
        headline = str(stored.get("headline") or "No headline was stored.")
    else:
        members = frame[frame["number"].isin(front_numbers(frame, spec))]
        recommended = best_number(members, spec, TrialKind.SEARCH)
        baseline = best_number(frame, spec, TrialKind.BASELINE)
        is_final, headline, stored = False, _interim_headline(frame, spec, recommended, baseline), {}
    rows = stored.get("confirmed")
    confirmed = tuple(item for item in rows if isinstance(item, Mapping)) if isinstance(rows, list | tuple) else ()
    return Result(
        recommended=recommended,
        baseline=baseline,
        knee=knee,
        headline=headline,
        reasons=_reasons(frame, spec, recommended, knee, confirmed),
        difference=stored.get("difference"),
        confirmed=confirmed,
        covered=covered,
        is_final=is_final,
    )


def _reasons(
    frame: pd.DataFrame,
    spec: StudySpec,
    recommended: int | None,
    knee: int | None,
    confirmed: Sequence[Mapping[str, Any]],
) -> dict[int, str]:
    reasons = {}
    primary = spec.objectives[0].name
    if knee is not None:
        reasons[knee] = (
            f"Trial {knee} is the front's knee, the best bargain: going cheaper from here costs much {primary}, "
            "going dearer gains little."
        )
    if recommended is not None:
        share = format_share(_cell(frame, recommended, "trainable_parameters"), spec.budget)
        text = (
            f"Trial {recommended} is recommended: {_why(frame, primary, recommended, confirmed)}, "
            f"with {share} of the parameters that the budget allows."
        )
        reasons[recommended] = text if recommended != knee else f"{text} It is also the front's knee."
    return reasons


def _why(frame: pd.DataFrame, primary: str, recommended: int, confirmed: Sequence[Mapping[str, Any]]) -> str:
    """What the search chooses by: the mean over further seeds where there is one, else the trial's own value."""
    search = set(frame.loc[frame["kind"] == TrialKind.SEARCH.value, "number"])
    rivals = {item.get("trial"): item for item in confirmed if item.get("trial") in search}
    own = rivals.get(recommended, {})
    mean, seeds = own.get("search_mean"), own.get("seeds")
    if not isinstance(mean, int | float) or not isinstance(seeds, list | tuple):
        return f"the best {primary} on the search split within the budget"
    others = f", the best of the {len(rivals)} trials that were repeated" if len(rivals) > 1 else ""
    return (
        f"repeated with {counted(len(seeds), 'other seed')} it has a mean {primary} of {format_score(mean)} on the "
        f"search split{others}"
    )


def _interim_headline(frame: pd.DataFrame, spec: StudySpec, recommended: int | None, baseline: int | None) -> str:
    if recommended is None:
        return "No search trial within the budget has been measured yet."
    best = f"Best on the search split so far: trial {recommended}, {_words(frame, spec, recommended)}."
    if baseline is None:
        return f"{best} No baseline within the budget has been measured. Not confirmed yet."
    name = frame.loc[frame["number"] == baseline, "label"].iloc[0] or f"trial {baseline}"
    return f"{best} Best baseline within the budget: {name}, {_words(frame, spec, baseline)}. Not confirmed yet."


def _words(frame: pd.DataFrame, spec: StudySpec, number: int) -> str:
    primary = spec.objectives[0].name
    count = _cell(frame, number, "trainable_parameters")
    share = format_share(count, spec.backbone.get("parameters"))
    return (
        f"{primary} {format_score(_cell(frame, number, primary))} with {format_count(count)} trainable parameters"
        + (f" ({share})" if share else "")
    )


def _cell(frame: pd.DataFrame, number: int, column: str) -> float:
    return float(frame.loc[frame["number"] == number, column].iloc[0])
