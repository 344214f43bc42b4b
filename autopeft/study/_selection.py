"""Which trial is best, which are confirmed, which is recommended: always by the search split."""

from __future__ import annotations

from collections.abc import Iterable

from autopeft.objectives import Constraint, bounds_of, keeps_bounds, to_maximization
from autopeft.study._front import Front
from autopeft.study._study import Study
from autopeft.study._trial import Trial, TrialKind, TrialState


def quality(study: Study, trial: Trial) -> float | None:
    """The first objective on the search split, larger is better; None if it was not measured."""
    objective = study.spec.objectives[0]
    value = trial.value(objective.name)
    return None if value is None else float(to_maximization([[value]], [objective])[0, 0])


def keeps_constraints(study: Study, trial: Trial) -> bool:
    """Whether a trial is known to keep every bound of the study (`autopeft.objectives.keeps_bounds`)."""
    return keeps_bounds(study.spec.constraints, trial.value)


def within_budget(study: Study, trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """Those that obey the parameter budget and the constraints."""
    return tuple(
        item
        for item in trials
        if item.draft.trainable_parameters <= study.spec.budget and keeps_constraints(study, item)
    )


def unkept_constraints(study: Study) -> str | None:
    """What keeps every measured search trial from being chosen.

    Returns:
        A sentence that names the constraints and how near the trials came; None if a measured trial keeps them all, or
        none was measured.
    """
    measured = [
        item
        for item in study.of_kind(TrialKind.SEARCH)
        if item.state is TrialState.COMPLETE and quality(study, item) is not None
    ]
    if not measured or any(keeps_constraints(study, item) for item in measured):
        return None
    bounds = bounds_of(study.spec.constraints)
    alone = [item for item in bounds if not any(keeps_bounds([item], trial.value) for trial in measured)]
    words = [_nearest(item, measured) for item in alone] or [f"{' and '.join(map(str, bounds))} together"]
    n = len(measured)
    return f"{'The only' if n == 1 else f'None of the {n}'} measured search trial{'s' * (n > 1)} " + (
        f"{'does not keep' if n == 1 else 'keeps'} {'; '.join(words)}."
    )


def _nearest(constraint: Constraint, trials: Iterable[Trial]) -> str:
    """A constraint that none of the trials keeps, and the value that comes nearest."""
    found = [(value, item.number) for item in trials if (value := item.value(constraint.name)) is not None]
    if not found:
        return f"{constraint} (it was measured in no trial)"

    def distance(pair: tuple[float, int]) -> float:
        return min(abs(pair[0] - bound) for bound in (constraint.lower, constraint.upper) if bound is not None)

    value, number = min(found, key=distance)
    return f"{constraint} (the nearest is {value:.4g}, trial {number})"


def _ranked(study: Study, trials: Iterable[Trial]) -> list[Trial]:
    """The completed trials that were measured, best first; of equals the one with fewest parameters, then the first."""
    complete = [(quality(study, item), item) for item in trials if item.state is TrialState.COMPLETE]
    known = [(value, item) for value, item in complete if value is not None]
    known.sort(key=lambda pair: (-pair[0], pair[1].draft.trainable_parameters, pair[1].number))
    return [item for _, item in known]


def best_of(study: Study, trials: Iterable[Trial]) -> Trial | None:
    """The first of the measured trials: the highest quality, of equals the fewest parameters; None if there is none."""
    return next(iter(_ranked(study, trials)), None)


def best_within_budget(study: Study) -> Trial | None:
    """The best search or baseline trial within the budget."""
    return best_of(study, within_budget(study, study.of_kind(TrialKind.SEARCH, TrialKind.BASELINE)))


def best_baseline(study: Study) -> Trial | None:
    """The best baseline within the budget."""
    return best_of(study, within_budget(study, study.of_kind(TrialKind.BASELINE)))


def search_front(study: Study) -> Front:
    """The front of the search trials that keep the constraints, baselines not included."""
    searched = study.of_kind(TrialKind.SEARCH)
    return Front.of((item for item in searched if keeps_constraints(study, item)), study.spec.objectives)


def to_confirm(study: Study, top: int) -> tuple[Trial, ...]:
    """What is retrained: the best `top` members of the search front, and the best baseline within the budget."""
    if top == 0:
        return ()
    members = _ranked(study, search_front(study).trials)[:top]
    baseline = best_baseline(study)
    return (*members, baseline) if baseline is not None else tuple(members)
