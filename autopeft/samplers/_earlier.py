"""What an earlier study leaves to later ones: which configurations reached what, in little space."""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autopeft.configuration import Configuration, OptionValue
from autopeft.objectives import Direction, Objective, non_dominated_mask, to_maximization
from autopeft.study import Study, Trial, TrialKind, TrialState

#: Most trials kept of a study: its front and an even choice of the others. A surrogate learns little from more.
MAX_TRIALS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierTrial:
    """A completed search trial or baseline.

    Args:
        configuration: What was trained.
        params: The point of its own space that it came from; None for baselines.
        trainable_parameters: Exact count on its own backbone.
        values: Natural values of the measured objectives, the first one among them.
    """

    configuration: Configuration
    params: Mapping[str, OptionValue] | None
    trainable_parameters: int
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierStudy:
    """An earlier study as far as it can teach.

    Args:
        name: Of the study.
        task: Name of its task.
        backbone: Name of its backbone.
        n_layers: Of that backbone.
        backbone_parameters: All parameters of that backbone.
        objectives: What was measured; the first is the quality.
        trials: By number, at full fidelity, each with something tuned.
    """

    name: str
    task: str
    backbone: str
    n_layers: int
    backbone_parameters: int
    objectives: tuple[Objective, ...]
    trials: tuple[EarlierTrial, ...]

    @classmethod
    def of(cls, study: Study) -> EarlierStudy:
        """Take from a study what can teach others; at most `MAX_TRIALS` trials."""
        spec = study.spec
        measured = tuple(item for item in spec.objectives if not item.is_known)
        found = []
        for trial in study.of_kind(TrialKind.SEARCH, TrialKind.BASELINE, state=TrialState.COMPLETE):
            values = {item.name: value for item in measured if (value := trial.value(item.name)) is not None}
            if not measured or measured[0].name not in values:
                continue
            if trial.draft.fidelity == spec.fidelity and trial.configuration.placements:
                found.append((trial, values))
        return cls(
            name=spec.name,
            task=str(spec.task.get("name", "")),
            backbone=str(spec.backbone.get("name", "")),
            n_layers=int(spec.backbone["n_layers"]),
            backbone_parameters=int(spec.backbone["parameters"]),
            objectives=measured,
            trials=tuple(_earlier(*found[i]) for i in _chosen(found, measured[:1])),
        )

    def quality(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """All-maximise values of the first objective, by trial (n,)."""
        first = self.objectives[0]
        return to_maximization([[item.values[first.name]] for item in self.trials], [first])[:, 0]

    def describe(self) -> str:
        """The study in words, for plans."""
        return f"{self.name} ({self.task} on {self.backbone}, {len(self.trials)} trials)"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, trials compressed; `from_dict` is its inverse."""
        rows = [
            [
                item.configuration.to_dict(),
                None if item.params is None else dict(item.params),
                item.trainable_parameters,
                dict(item.values),
            ]
            for item in self.trials
        ]
        packed = zlib.compress(json.dumps(rows, separators=(",", ":"), allow_nan=False).encode(), level=9)
        return {
            "name": self.name,
            "task": self.task,
            "backbone": self.backbone,
            "n_layers": self.n_layers,
            "backbone_parameters": self.backbone_parameters,
            "objectives": [[item.name, item.direction.value] for item in self.objectives],
            "n_trials": len(self.trials),
            "trials": base64.b64encode(packed).decode(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EarlierStudy:
        """Rebuild from `to_dict`."""
        rows = json.loads(zlib.decompress(base64.b64decode(data["trials"])))
        return cls(
            name=data["name"],
            task=data["task"],
            backbone=data["backbone"],
            n_layers=data["n_layers"],
            backbone_parameters=data["backbone_parameters"],
            objectives=tuple(Objective(name=name, direction=Direction(way)) for name, way in data["objectives"]),
            trials=tuple(
                EarlierTrial(
                    configuration=Configuration.from_dict(configuration),
                    params=params,
                    trainable_parameters=count,
                    values=values,
                )
                for configuration, params, count, values in rows
            ),
        )


def _earlier(trial: Trial, values: Mapping[str, float]) -> EarlierTrial:
    return EarlierTrial(
        configuration=trial.configuration,
        params=trial.draft.params,
        trainable_parameters=trial.draft.trainable_parameters,
        values=values,
    )


def _chosen(found: Sequence[tuple[Trial, Mapping[str, float]]], first: Sequence[Objective]) -> list[int]:
    """Positions of the trials to keep, ascending: the front of quality and cost, then an even choice of the rest."""
    if len(found) <= MAX_TRIALS:
        return list(range(len(found)))
    quality = to_maximization([[values[first[0].name]] for _, values in found], first)[:, 0]
    cost = [-math.log1p(trial.draft.trainable_parameters) for trial, _ in found]
    front = np.flatnonzero(non_dominated_mask(np.column_stack([quality, cost]))).tolist()[:MAX_TRIALS]
    rest = [i for i in range(len(found)) if i not in front]
    even = np.linspace(0, len(rest) - 1, MAX_TRIALS - len(front)).round().astype(int).tolist()
    return sorted({*front, *(rest[i] for i in even)})
