"""How much a trial is trained, where it is measured on the way, and what may stop it there."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autopeft.configuration import BackboneShapes, known_costs
from autopeft.exceptions import UnknownNameError, UsageError
from autopeft.modules import MODULES
from autopeft.orchestrate._settings import SearchSettings, parse_share
from autopeft.pruners import PRUNERS, Pruner, make_pruner
from autopeft.study import Fidelity, StudySpec, Trial
from autopeft.tasks import Task
from autopeft.training import TrainingSettings

#: Shares of a run after which it is measured on the way.
RUNGS = (1 / 9, 1 / 3, 2 / 3)
#: A rung after fewer steps hardly ranks trials as they end: on stdlib/topics Kendall's tau is 0.3 after 10 steps of 88,
#: 0.6 after 20, 0.7 after 30 and 0.8 after 44.
_MIN_STEPS = 25
#: One example of the search split is scored at a rung per so many that a run trains on. A forward pass costs about a
#: third of a training step, so a rung costs about two percent of a run.
_TRAINED_PER_SCORED = 16
_MIN_SCORED = 64
#: Share of the training examples that a search at low fidelity trains on.
LOW = 1 / 3
#: What stops trials where `--fidelity auto` decides.
DEFAULT_PRUNER = "pareto"


@dataclass(frozen=True, slots=True, kw_only=True)
class FidelityPlan:
    """What `--fidelity` and `--pruner` come to.

    Args:
        search: Fidelity of search trials and baselines.
        confirm: Of confirmations, if another; None for the same.
        pruner: Key of `autopeft.pruners.PRUNERS`.
        rungs: Shares of a run; empty where nothing is stopped.
        rung_examples: `TrainingSettings.rung_examples`.
    """

    search: Fidelity
    confirm: Fidelity | None
    pruner: str
    rungs: tuple[float, ...]
    rung_examples: int | None


def resolve_fidelity(settings: SearchSettings, task: Task, reserve: int = 0) -> FidelityPlan:
    """Turn the settings into fidelities, rungs and a pruner.

    Args:
        settings: What the user asked for.
        task: Its data.
        reserve: Examples at the end of the training split that are for rewards alone.

    Raises:
        UsageError: If there is no such fidelity or pruner.
    """
    pruner = settings.pruner or (DEFAULT_PRUNER if settings.fidelity == "auto" else "none")
    if pruner not in PRUNERS:
        raise UnknownNameError("pruner", pruner, PRUNERS)
    default = task.default_fidelity()
    full = Fidelity(
        train_examples=min(settings.train_examples or default.train_examples, len(task.train.targets) - reserve),
        epochs=settings.epochs or default.epochs,
    )
    share = fidelity_share(settings.fidelity)
    search = Fidelity(train_examples=max(1, math.ceil(share * full.train_examples)), epochs=full.epochs)
    n_steps = TrainingSettings(batch_size=settings.batch_size).n_steps(search)
    late = tuple(share for share in RUNGS if share * n_steps >= _MIN_STEPS)
    rungs = () if pruner == "none" else late or RUNGS[1:]
    n_trained = search.train_examples * search.epochs
    n_scored = min(max(n_trained // _TRAINED_PER_SCORED, _MIN_SCORED), len(task.search.targets))
    return FidelityPlan(
        search=search,
        confirm=None if search == full else full,
        pruner=pruner,
        rungs=rungs,
        rung_examples=n_scored if rungs else None,
    )


def fidelity_share(text: str) -> float:
    """The share of the full training examples that search trials train on, in (0, 1].

    Args:
        text: ``"auto"``, ``"full"``, ``"low"``, or a share as ``"25%"`` or ``"0.25"``.

    Raises:
        UsageError: If it is none of these.
    """
    named = {"auto": 1.0, "full": 1.0, "low": LOW}
    if text in named:
        return named[text]
    try:
        share = parse_share(text)
    except UsageError:
        share = math.nan
    if not 0 < share <= 1:
        raise UsageError(
            f"--fidelity is auto, full, low, or the share of the training examples that search trials train on, such "
            f"as 25%, but got {text!r}."
        )
    return share


def study_pruner(spec: StudySpec, shapes: BackboneShapes) -> Pruner:
    """What stops the trials of a study.

    Args:
        spec: The study.
        shapes: Of its backbone.
    """
    training = TrainingSettings(**spec.training)
    rungs = training.rung_steps(spec.fidelity)
    if spec.pruner != "mo_asha":
        # The ends of epochs are measured anyway. Halving counts on few rungs, of which each lets so many go on.
        rungs = tuple(sorted({*rungs, *training.epoch_points(spec.fidelity)[:-1]}))

    costs: dict[str, dict[str, float]] = {}

    def known(trial: Trial, name: str) -> float | None:
        if name == "trainable_parameters":
            return trial.value(name)
        fingerprint = trial.configuration.fingerprint
        if fingerprint not in costs:
            costs[fingerprint] = known_costs(trial.configuration, shapes, MODULES)
        return costs[fingerprint].get(name)

    return make_pruner(
        spec.pruner,
        objectives=spec.objectives,
        fidelity=spec.fidelity,
        rungs=rungs,
        constraints=spec.constraints,
        known=known,
    )
