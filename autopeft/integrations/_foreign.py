"""Trials that another framework keeps, as our samplers want to see them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from autopeft.configuration import BoundSpace, OptionValue, load_search_space, parse_budget
from autopeft.exceptions import ConfigurationError, UsageError
from autopeft.objectives import COSTS, Direction, Objective
from autopeft.study import SEARCH_SPLIT, Failure, Fidelity, Measurement, Trial, TrialDraft, TrialKind, TrialState

#: Other frameworks do not say how much training a trial stands for; it is the same for all of them.
FIDELITY = Fidelity(train_examples=1, epochs=1)
#: Name of the objective that is counted, not measured.
EXACT = "trainable_parameters"


def bind(space: str = "default", *, backbone: str = "minilm", budget: str = "1%") -> BoundSpace:
    """A search space as the integrations take it: bound to a backbone and a parameter budget, no weights loaded.

    Args:
        space: Registered search space, or the path of a YAML file.
        backbone: Registered backbone, local folder, or hub id.
        budget: Cap on trainable PEFT parameters, ``"1%"`` of the backbone or ``"300k"``.

    Raises:
        UsageError: If a name is unknown, or no configuration keeps the budget.
    """
    from autopeft.backbones import describe_backbone
    from autopeft.modules import MODULES

    shapes = describe_backbone(backbone).shapes
    bound = BoundSpace(
        space=load_search_space(space, MODULES),
        shapes=shapes,
        module_types=MODULES,
        budget=parse_budget(budget, shapes.parameters),
    )
    bound.check_budget()
    return bound


def named_objectives(names: Sequence[str], directions: Sequence[Direction]) -> tuple[Objective, ...]:
    """Objectives as another framework declares them.

    Args:
        names: One per objective; `EXACT` is the one whose value the configuration itself tells.
        directions: One per objective.

    Raises:
        UsageError: If the numbers differ or a name comes twice.
    """
    if len(names) != len(directions):
        raise UsageError(
            f"one name per objective is needed, but got {len(names)} ({', '.join(names)}) for {len(directions)} "
            "objectives."
        )
    if len(set(names)) < len(names):
        raise UsageError(f"names of objectives must differ, but got {', '.join(names)}.")
    return tuple(
        Objective(
            name=name, direction=direction, unit=COSTS[name].unit if name in COSTS else "", is_known=name == EXACT
        )
        for name, direction in zip(names, directions, strict=True)
    )


def point_of(space: BoundSpace, params: Mapping[str, Any]) -> dict[str, OptionValue] | None:
    """The canonical point behind another framework's parameters.

    Args:
        space: What is searched.
        params: May hold further parameters, and values of inactive ones.

    Returns:
        Active parameters only; None if one is missing or out of range, or the point is infeasible.
    """
    names = {item.name for item in space.parameters}
    try:
        point = space.canonical({name: value for name, value in params.items() if name in names})
    except ConfigurationError:
        return None
    return point if space.is_feasible(point) else None


def foreign_trial(
    number: int,
    point: Mapping[str, OptionValue],
    space: BoundSpace,
    *,
    seed: int,
    state: TrialState,
    values: Mapping[str, float] | None = None,
    reason: str = "error",
) -> Trial:
    """A trial as our samplers see it.

    Args:
        number: Its number there.
        point: A feasible canonical point.
        space: What is searched.
        seed: Of the sampler.
        state: What became of it; finished trials whose values are not all finite have diverged.
        values: Natural values by objective; None if there are none.
        reason: Of a failure, see `autopeft.study.Failure`.
    """
    configuration = space.compile(point)
    if values is not None and not all(math.isfinite(value) for value in values.values()):
        state, reason, values = TrialState.FAILED, "divergence", None
    measured = {name: value for name, value in (values or {}).items() if name != EXACT}
    has_result = state in (TrialState.COMPLETE, TrialState.PRUNED) and values is not None
    return Trial(
        number=number,
        draft=TrialDraft(
            kind=TrialKind.SEARCH,
            configuration=configuration,
            trainable_parameters=space.parameter_count(configuration),
            fidelity=FIDELITY,
            seed=seed,
            params=dict(point),
        ),
        state=state,
        measurements=(Measurement(split=SEARCH_SPLIT, fidelity=FIDELITY, seed=seed, metrics=measured),)
        if has_result
        else (),
        failure=Failure(reason=reason, message=f"trial {number} failed") if state is TrialState.FAILED else None,
    )
