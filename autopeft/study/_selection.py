"""Which trial is best, which are confirmed, which is recommended: always by the search split."""

from __future__ import annotations

from collections.abc import Iterable

from autopeft.objectives import keeps_bounds, to_maximization
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
