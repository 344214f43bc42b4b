"""A study: what is searched, and every trial so far. Read-only values; the store owns the state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autopeft.objectives import Constraint, Direction, Objective
from autopeft.study._measurement import Fidelity
from autopeft.study._trial import Trial, TrialKind, TrialState


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySpec:
    """Everything that defines a study; resuming demands equality (see `differences`).

    Args:
        name: Unique name in the store.
        task: The task's settings, JSON-ready: name, source, columns, fractions, split seed, content hash.
        backbone: The backbone's settings, JSON-ready: name, source, content hash, parameters, architecture.
        space: The search space, JSON-ready: name and full definition.
        budget: Cap on trainable PEFT parameters, task head excluded, absolute.
        budget_text: As the user wrote it, for example ``"1%"``.
        sampler: Key of `autopeft.samplers.SAMPLERS`.
        objectives: What is optimised; the first is the task metric that picks the recommendation.
        fidelity: Full fidelity of a search trial.
        training: Training settings shared by all trials, JSON-ready: batch size, maximum tokens, precision.
        seed: Seed of the study.
        rewards: What is measured beside the task's metrics, JSON-ready: by name the ``reference`` it is found by, its
            ``direction``, ``unit`` and ``settings``.
        pruner: Key of `autopeft.pruners.PRUNERS`: what stops search trials early.
        confirm_fidelity: Fidelity of confirmations, if the search's is lower; None for the same.
        constraints: What the front and the recommendation must keep, at most one per name.
    """

    name: str
    task: Mapping[str, Any]
    backbone: Mapping[str, Any]
    space: Mapping[str, Any]
    budget: int
    budget_text: str
    sampler: str
    objectives: tuple[Objective, ...]
    fidelity: Fidelity
    training: Mapping[str, Any]
    seed: int
    rewards: Mapping[str, Any] = field(default_factory=dict)
    pruner: str = "none"
    confirm_fidelity: Fidelity | None = None
    constraints: tuple[Constraint, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; `from_dict` is its inverse."""
        data: dict[str, Any] = {
            "name": self.name,
            "task": dict(self.task),
            "backbone": dict(self.backbone),
            "space": dict(self.space),
            "budget": self.budget,
            "budget_text": self.budget_text,
            "sampler": self.sampler,
            "objectives": [
                {
                    "name": item.name,
                    "direction": item.direction.value,
                    "unit": item.unit,
                    "is_known": item.is_known,
                }
                for item in self.objectives
            ],
            "fidelity": self.fidelity.to_dict(),
            "training": dict(self.training),
            "seed": self.seed,
            "pruner": self.pruner,
            "confirm_fidelity": None if self.confirm_fidelity is None else self.confirm_fidelity.to_dict(),
        }
        # Left out where there are none: settings from before there were such things stay what they are.
        if self.rewards:
            data["rewards"] = dict(self.rewards)
        if self.constraints:
            data["constraints"] = [item.to_dict() for item in self.constraints]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StudySpec:
        """Rebuild a spec from `to_dict`."""
        objectives = tuple(
            Objective(**{**item, "direction": Direction(item["direction"])}) for item in data["objectives"]
        )
        confirm = data.get("confirm_fidelity")
        changed = {
            "objectives": objectives,
            "fidelity": Fidelity(**data["fidelity"]),
            "confirm_fidelity": None if confirm is None else Fidelity(**confirm),
            "constraints": tuple(Constraint.from_dict(item) for item in data.get("constraints", ())),
        }
        return cls(**{**data, **changed})

    @property
    def secondary(self) -> tuple[Objective, ...]:
        """What is measured beside the first objective: the others but the parameters, then the recorded rewards."""
        others = [item for item in self.objectives[1:] if item.name != "trainable_parameters"]
        names = {item.name for item in self.objectives}
        others += [
            Objective(name=name, direction=Direction(item["direction"]), unit=item["unit"])
            for name, item in self.rewards.items()
            if name not in names
        ]
        return tuple(others)

    def differences(self, other: StudySpec) -> list[str]:
        """What differs from another spec, one sentence each: ``"budget: 227131 here, 454263 there"``."""
        mine, theirs = _flatten(self.to_dict()), _flatten(other.to_dict())
        return [
            f"{key}: {mine.get(key)!r} here, {theirs.get(key)!r} there"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {k: v for key, item in value.items() for k, v in _flatten(item, f"{prefix}{key}.").items()}
    return {prefix.rstrip("."): list(value) if isinstance(value, tuple) else value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A study as the store holds it.

    Args:
        spec: What is searched.
        trials: All trials, by number.
        attributes: Further JSON-ready facts: the measured probe, the headline, the recommendation.
    """

    spec: StudySpec
    trials: tuple[Trial, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def of_kind(self, *kinds: TrialKind, state: TrialState | None = None) -> tuple[Trial, ...]:
        """Trials of some kinds, optionally in one state, by number."""
        return tuple(item for item in self.trials if item.kind in kinds and (state is None or item.state is state))
