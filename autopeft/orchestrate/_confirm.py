"""After the search: retrain the front and the best baseline over seeds, score them once, say what was gained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from autopeft.exceptions import TrialConflictError
from autopeft.objectives import Direction, Objective
from autopeft.orchestrate._guess import warn_of_chance
from autopeft.orchestrate._statistics import Array, Interval, Score, difference_interval, score_interval, seed_interval
from autopeft.store import TrialStore
from autopeft.study import (
    REPORT_SPLIT,
    SEARCH_SPLIT,
    Study,
    Trial,
    TrialDraft,
    TrialKind,
    TrialState,
    best_baseline,
    best_of,
    search_front,
    to_confirm,
    unkept_constraints,
    within_budget,
)
from autopeft.tasks import Task


def confirmation_seeds(study_seed: int, n: int) -> tuple[int, ...]:
    """Seeds of the confirmation: never the search's own, which chose the configurations."""
    return tuple(study_seed + 1 + i for i in range(n))


def enqueue_confirmations(store: TrialStore, study: Study, *, top: int, seeds: int) -> int:
    """Add the confirmation trials that are not there yet.

    Returns:
        How many were added.
    """
    known = {item.draft.identity for item in study.trials}
    added = 0
    for trial in to_confirm(study, top):
        for seed in confirmation_seeds(study.spec.seed, seeds):
            draft = TrialDraft(
                kind=TrialKind.CONFIRMATION,
                configuration=trial.configuration,
                trainable_parameters=trial.draft.trainable_parameters,
                fidelity=study.spec.confirm_fidelity or study.spec.fidelity,
                seed=seed,
                params=trial.draft.params,
                label=trial.draft.label,
                parent=trial.number,
            )
            if draft.identity in known:
                continue
            try:
                store.add_trial(study.spec.name, draft)
                added += 1
            except TrialConflictError:
                continue  # another process of this search added it first
    return added


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """A trial's confirmation runs, together.

    Args:
        trial: The trial that was repeated.
        repeats: Its completed confirmation trials, by seed.
        search_mean: Mean of the first objective on the search split.
        report: Mean and 95 % interval on the report split; None if the metric is undefined there.
    """

    trial: Trial
    repeats: tuple[Trial, ...]
    search_mean: float
    report: Interval | None

    @property
    def predictions(self) -> Array:
        """Predictions on the report split (S seeds x n examples)."""
        rows = [item.measurement(REPORT_SPLIT) for item in self.repeats]
        return np.array([row.predictions for row in rows if row is not None], dtype=np.float64)


def summarize(study: Study, task: Task) -> dict[str, Any]:
    """The study's result: recommendation, best baseline, their difference on the report split, in words and numbers.

    The recommendation is chosen by the search split alone; the report split only scores it.

    Returns:
        JSON-ready summary, stored as the study's attribute ``"summary"``.
    """
    metric = study.spec.objectives[0].name
    score = _scorer(task, metric)
    confirmed = _confirmed(study, task, score)
    baseline_trial = best_baseline(study)
    candidates = [item for item in confirmed if item.trial.kind is TrialKind.SEARCH]
    allowed = [item for item in candidates if item.trial in within_budget(study, [item.trial])]
    sign = 1.0 if study.spec.objectives[0].direction is Direction.MAXIMIZE else -1.0
    chosen = max(allowed, key=lambda item: sign * item.search_mean, default=None)
    fallback = best_of(study, within_budget(study, search_front(study).trials))
    recommended = chosen.trial if chosen is not None else fallback
    against = next((item for item in confirmed if baseline_trial and item.trial.number == baseline_trial.number), None)
    difference = None
    if chosen is not None and against is not None:
        targets = np.asarray(task.report.targets, dtype=np.float64)
        difference = difference_interval(chosen.predictions, against.predictions, targets, score)
    result = headline(study, chosen, recommended, against, difference)
    warning = warn_of_chance(study, task)
    return {
        "metric": metric,
        "n_trials": len(study.trials),
        "recommended": None if recommended is None else recommended.number,
        "best_baseline": None if baseline_trial is None else baseline_trial.number,
        "headline": result if warning is None else f"{warning} {result}",
        "difference": None if difference is None else {"metric": metric, **asdict(difference)},
        "confirmed": [_confirmed_row(item, study) for item in confirmed],
    }


def headline(
    study: Study,
    chosen: Confirmed | None,
    recommended: Trial | None,
    against: Confirmed | None,
    difference: Interval | None,
) -> str:
    """The result in a few sentences: the difference with its interval, or that none was found, and which to use."""
    metric = study.spec.objectives[0].name
    if recommended is None:
        unkept = unkept_constraints(study)
        if unkept is not None:
            return f"{unkept} Nothing is recommended; loosen what cannot be kept, or search on with more --trials."
        return "No search trial within the budget was measured; see `autopeft trials` for the failures."
    share = 100 * recommended.draft.trainable_parameters / study.spec.backbone["parameters"]
    what = (
        f"Trial {recommended.number} ({recommended.configuration.describe()}) "
        f"with {recommended.draft.trainable_parameters:,} trainable parameters ({share:.2f} %)"
    )
    if chosen is None or chosen.report is None:
        return f"{what} is best on the search split: {metric} {recommended.value(metric):.4f}. Not confirmed."
    report = chosen.report
    scored = (
        f"{what} scores {metric} {report.mean:.4f} [{report.low:.4f}, {report.high:.4f}] on the report split "
        f"(mean of {report.n_seeds} seeds)"
    )
    if against is None or difference is None:
        return f"{scored}. No baseline within the budget was confirmed."
    return f"{scored}{_verdict(study.spec.objectives[0], recommended, against.trial, difference)}"


def _verdict(objective: Objective, recommended: Trial, baseline: Trial, difference: Interval) -> str:
    """How the scores differ, at what cost, and what to use where the baseline is better."""
    # Every metric that is maximised lies in [-1, 1]; an error has the unit of its labels.
    is_maximized = objective.direction is Direction.MAXIMIZE
    scale, digits, unit = (100, ".1f", "points") if is_maximized else (1, ".4f", objective.name)
    mean, low, high = (scale * value for value in (difference.mean, difference.low, difference.high))
    its, own = baseline.draft.trainable_parameters, recommended.draft.trainable_parameters
    name = f"the best baseline within the budget, {baseline.draft.label}"
    cost = f", at {own / its:.2f} times its parameters" if its else ""
    if not difference.excludes_zero:
        return (
            f". No difference found against {name}: {mean:+{digits}} {unit} [{low:+{digits}}, {high:+{digits}}]{cost}."
        )
    near, far = sorted((abs(low), abs(high)))
    size, interval = f"{abs(mean):{digits}} {unit}", f"[{near:{digits}}, {far:{digits}}]"
    if (mean > 0) == is_maximized:
        return f": {size} better {interval} than {name}{cost}."
    return f": {size} worse {interval} than {name}{cost}. Use the baseline, trial {baseline.number}: it is better."


def _scorer(task: Task, metric: str) -> Score:
    def score(predictions: Array, targets: Array) -> float | None:
        value = task.evaluate(predictions, targets).get(metric)
        return None if value is None else float(value)

    return score


def _confirmed(study: Study, task: Task, score: Score) -> list[Confirmed]:
    """Every trial with completed confirmation runs, by number."""
    metric = study.spec.objectives[0].name
    targets = np.asarray(task.report.targets, dtype=np.float64)
    groups: dict[int, list[Trial]] = {}
    for item in study.of_kind(TrialKind.CONFIRMATION, state=TrialState.COMPLETE):
        if item.draft.parent is not None and item.value(metric) is not None:
            groups.setdefault(item.draft.parent, []).append(item)
    found = []
    for parent, repeats in sorted(groups.items()):
        values = [value for item in repeats if (value := item.value(metric)) is not None]
        entry = Confirmed(
            trial=study.trials[parent], repeats=tuple(repeats), search_mean=float(np.mean(values)), report=None
        )
        interval = score_interval(entry.predictions, targets, score) if len(entry.predictions) else None
        if interval is not None and study.spec.objectives[0].direction is Direction.MAXIMIZE:
            # Every metric that is maximised ends at 1: accuracy, F1, and the correlations.
            interval = replace(interval, high=min(interval.high, 1.0))
        found.append(
            Confirmed(trial=entry.trial, repeats=entry.repeats, search_mean=entry.search_mean, report=interval)
        )
    return found


def _confirmed_row(item: Confirmed, study: Study) -> dict[str, Any]:
    report = item.report
    secondary = {
        objective.name: {
            split: _over_seeds([repeat.value(objective.name, split) for repeat in item.repeats])
            for split in (SEARCH_SPLIT, REPORT_SPLIT)
        }
        for objective in study.spec.secondary
    }
    return {
        "trial": item.trial.number,
        "seeds": [repeat.draft.seed for repeat in item.repeats],
        "search_mean": item.search_mean,
        "report_mean": None if report is None else report.mean,
        "report_low": None if report is None else report.low,
        "report_high": None if report is None else report.high,
        "secondary": secondary,
    }


def _over_seeds(values: Sequence[float | None]) -> dict[str, float] | None:
    """Mean over the seeds that have a value, with its 95 % interval where there are several; None if none has."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    interval = seed_interval(known)
    if interval is None:
        return {"mean": known[0]}
    return dict(zip(("mean", "low", "high"), interval, strict=True))
