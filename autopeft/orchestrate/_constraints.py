"""From what a user writes behind --constraint to bounds that can be kept."""

from __future__ import annotations

from collections.abc import Sequence

from autopeft.configuration import BoundSpace, export_class
from autopeft.exceptions import UsageError
from autopeft.objectives import COSTS, EXPORT_CLASS, QUALITY, Constraint, merge_constraints
from autopeft.samplers import contradiction
from autopeft.tasks import METRICS, Metric, Task


def resolve_constraints(
    texts: Sequence[str], task: Task, space: BoundSpace, rewards: Sequence[str]
) -> tuple[Constraint, ...]:
    """Read constraints and refuse what nothing can keep.

    Args:
        texts: As `Constraint.parse` reads them; ``"quality"`` stands for the task's primary metric.
        task: Its metrics can be bounded.
        space: What is searched.
        rewards: Names of what is measured beside the task's metrics; these can be bounded, too.

    Returns:
        One constraint per name, sorted by name.

    Raises:
        UsageError: If a name is unknown or not measured, constraints contradict each other, the budget or the space, or
            no module family of the space can be exported as demanded.
    """
    found = [Constraint.parse(text) for text in texts]
    named = [
        Constraint(name=task.primary_metric, lower=item.lower, upper=item.upper) if item.name == QUALITY else item
        for item in found
    ]
    merged = merge_constraints(named, [*task.metrics, *COSTS, *rewards, EXPORT_CLASS, QUALITY])
    for item in merged:
        _check(item, space)
    _check_together(merged, space)
    return merged


def _check_together(constraints: Sequence[Constraint], space: BoundSpace) -> None:
    found = contradiction(space, constraints)
    if found:
        way_out = "loosen it" if len(found) == 1 else "they contradict each other; drop or loosen one"
        raise UsageError(
            f"no configuration of search space {space.space.name} within the budget of {space.budget or 0:,} "
            f"parameters was found that keeps {' and '.join(map(str, found))}: {way_out}."
        )


def _check(constraint: Constraint, space: BoundSpace) -> None:
    if constraint.name == EXPORT_CLASS:
        classes = {export_class(name, space.module_types) for name in space.type_names}
        if not classes & set(constraint.allowed):
            raise UsageError(
                f"no module family of search space {space.space.name} keeps {constraint}: its export classes are "
                f"{', '.join(sorted(classes))}."
            )
    if constraint.name in COSTS and constraint.upper is not None and constraint.upper < 0:
        raise UsageError(f"nothing keeps {constraint}: {constraint.name} is never negative.")
    if constraint.name in METRICS:
        _check_range(constraint, METRICS[constraint.name])
    if constraint.name == "trainable_parameters" and constraint.upper is not None:
        least = space.parameter_count(space.smallest())
        if constraint.upper < least:
            raise UsageError(
                f"nothing keeps {constraint}: the smallest configuration of search space {space.space.name} has "
                f"{least:,} parameters."
            )
    lower = constraint.lower if constraint.name == "trainable_parameters" else None
    if lower is not None and space.budget is not None and lower > space.budget:
        raise UsageError(f"{constraint} and the budget of {space.budget:,} parameters contradict each other.")


def _check_range(constraint: Constraint, metric: Metric) -> None:
    too_high = constraint.lower is not None and metric.high is not None and constraint.lower > metric.high
    too_low = constraint.upper is not None and metric.low is not None and constraint.upper < metric.low
    if too_high or too_low:
        low = "-inf" if metric.low is None else f"{metric.low:g}"
        high = "inf" if metric.high is None else f"{metric.high:g}"
        raise UsageError(f"nothing keeps {constraint}: {constraint.name} lies between {low} and {high}.")
