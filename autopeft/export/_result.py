"""What a study found, at any moment of its life: what its search stored at the end, else what its trials say now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from autopeft.export._format import format_count, format_score, format_share
from autopeft.objectives import Direction
from autopeft.study import (
    REPORT_SPLIT,
    Front,
    Study,
    Trial,
    TrialKind,
    best_baseline,
    best_of,
    search_front,
    unkept_constraints,
    within_budget,
)

#: Study attribute that the search writes when it has confirmed its front.
SUMMARY_ATTRIBUTE = "summary"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResult:
    """A study's result so far.

    Args:
        front: Non-dominated search trials.
        recommended: The search's choice; None if no measured search trial keeps the constraints.
        best_baseline: The best baseline within the budget; None if none was measured.
        headline: The result in one or two sentences.
        difference: Recommended minus best baseline on the report split: ``metric``, ``mean``, ``low``, ``high`` (95 %
            interval), ``n_seeds``, ``n_examples``; None before the confirmation.
        confirmed: One mapping per confirmed trial: ``trial``, ``seeds``, ``search_mean``, ``report_mean``,
            ``report_low``, ``report_high``; and ``secondary``: by the name of each further objective and reward, by
            split, ``mean``, ``low``, ``high``.
        is_final: Whether the search has confirmed and summarized these trials.
    """

    front: Front
    recommended: Trial | None
    best_baseline: Trial | None
    headline: str
    difference: Mapping[str, Any] | None
    confirmed: tuple[Mapping[str, Any], ...]
    is_final: bool

    @classmethod
    def of(cls, study: Study) -> StudyResult:
        """Read a study's summary, or work out what can be said without one."""
        front = search_front(study)
        stored = study.attributes.get(SUMMARY_ATTRIBUTE)
        if isinstance(stored, Mapping):
            return cls(
                front=front,
                recommended=_trial(study, stored.get("recommended")),
                best_baseline=_trial(study, stored.get("best_baseline")),
                headline=str(stored.get("headline") or "No headline was stored."),
                difference=stored.get("difference"),
                confirmed=tuple(stored.get("confirmed") or ()),
                is_final=_is_current(study, stored.get("n_trials")),
            )
        recommended = best_of(study, within_budget(study, front.trials))
        baseline = best_baseline(study)
        return cls(
            front=front,
            recommended=recommended,
            best_baseline=baseline,
            headline=_interim_headline(study, recommended, baseline),
            difference=None,
            confirmed=(),
            is_final=False,
        )

    @property
    def trial_to_use(self) -> Trial | None:
        """The recommended trial, unless the best baseline is measured better: then that."""
        if self.difference is None or self.best_baseline is None:
            return self.recommended
        ends = (self.difference["low"], self.difference["high"])
        is_maximized = self.front.objectives[0].direction is Direction.MAXIMIZE
        is_worse = max(ends) < 0 if is_maximized else min(ends) > 0
        return self.best_baseline if is_worse else self.recommended


def display_name(trial: Trial) -> str:
    """A trial in words: its label if it has one, else its configuration."""
    return trial.draft.label or trial.configuration.describe()


def report_value(study: Study, trial: Trial, name: str) -> float | None:
    """An objective on the report split: measured on the trial itself, or the mean over its confirmations' seeds."""
    own = None if trial.measurement(REPORT_SPLIT) is None else trial.value(name, REPORT_SPLIT)
    if own is not None:
        return own
    repeats = [item for item in study.of_kind(TrialKind.CONFIRMATION) if item.draft.parent == trial.number]
    values = [item.value(name, REPORT_SPLIT) for item in repeats if item.measurement(REPORT_SPLIT) is not None]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def environment_values(study: Study) -> dict[str, list[Any]]:
    """Every environment fact of the measurements with all the values it took: several mean several machines."""
    found: dict[str, list[Any]] = {}
    for trial in study.trials:
        for measurement in trial.measurements:
            for key, value in _flatten(measurement.environment):
                values = found.setdefault(key, [])
                if value not in values:
                    values.append(value)
    return dict(sorted(found.items()))


def _flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _flatten(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _is_current(study: Study, n_summarized: object) -> bool:
    """Whether a stored summary covers all trials: a search that was extended and interrupted has an old one."""
    return n_summarized in (None, len(study.trials)) and all(item.state.is_finished for item in study.trials)


def _trial(study: Study, number: object) -> Trial | None:
    if not isinstance(number, int):
        return None
    return next((item for item in study.trials if item.number == number), None)


def _interim_headline(study: Study, recommended: Trial | None, baseline: Trial | None) -> str:
    """Search values only, and said so: nothing has been confirmed on the report split."""
    metric = study.spec.objectives[0].name
    if recommended is None:
        return unkept_constraints(study) or "No search trial within the budget has been measured yet."

    def words(trial: Trial) -> str:
        count = trial.draft.trainable_parameters
        share = format_share(count, study.spec.backbone.get("parameters"))
        return f"{metric} {format_score(trial.value(metric))} with {format_count(count)} trainable parameters" + (
            f" ({share})" if share else ""
        )

    best = f"Best on the search split so far: trial {recommended.number}, {words(recommended)}."
    if baseline is None:
        return f"{best} No baseline within the budget has been measured. Not confirmed yet."
    return f"{best} Best baseline within the budget: {display_name(baseline)}, {words(baseline)}. Not confirmed yet."
