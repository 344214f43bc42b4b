"""What a sampler reads off the trials; the policies for failed, pruned and unfinished ones live here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from autopeft.configuration import Configuration, OptionValue
from autopeft.objectives import Direction, Objective, to_maximization
from autopeft.study import Fidelity, Trial, TrialKind, TrialState

#: Failures that the configuration itself causes. A lost worker or a program error says nothing about quality.
BLAMED_FAILURES = frozenset({"divergence", "out_of_memory"})


class Evidence(StrEnum):
    """How a trial counts.

    MEASURED: completed with every objective; the only kind that can be a member of a front.
    PRUNED: stopped early with every objective; its values are a pessimistic observation.
    FAILED: diverged or ran out of memory; counts as the worst measured value of each objective, and not at all while
        nothing has been measured (policy "worst observed": a failure teaches, but never with an invented number).
    PENDING: waiting or running; believed to turn out as predicted.
    """

    MEASURED = "measured"
    PRUNED = "pruned"
    FAILED = "failed"
    PENDING = "pending"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One trial as a sampler sees it.

    Args:
        number: Of the trial.
        kind: Search or baseline.
        evidence: How it counts.
        configuration: What was trained.
        params: The point it came from; None for baselines.
        trainable_parameters: Exact count.
        values: All-maximise values of the measured objectives, in their order; None while PENDING.
    """

    number: int
    kind: TrialKind
    evidence: Evidence
    configuration: Configuration
    params: Mapping[str, OptionValue] | None
    trainable_parameters: int
    values: tuple[float, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The part of a study's past that a sampler may depend on.

    Args:
        n_search: Search trials created so far, in any state; with the study's seed it seeds the generator.
        taken: Fingerprints that must not be proposed again.
        observations: By trial number. Trials at another fidelity are not among them.
    """

    n_search: int
    taken: frozenset[str]
    observations: tuple[Observation, ...]

    @classmethod
    def of(cls, trials: Sequence[Trial], *, objectives: Sequence[Objective], seed: int, fidelity: Fidelity) -> History:
        """Read the trials.

        Args:
            trials: In any order; confirmations are ignored.
            objectives: Of the study; those that are not known exactly are read off the search split.
            seed: Of the study's search trials. Trials of another seed are observations but take no configuration.
            fidelity: Of the study's search trials.
        """
        relevant = sorted(
            (item for item in trials if item.kind is not TrialKind.CONFIRMATION), key=lambda item: item.number
        )
        here = [item for item in relevant if item.draft.fidelity == fidelity]
        measured = measured_objectives(objectives)
        seen = [observation for item in here if (observation := _observe(item, measured)) is not None]
        return cls(
            n_search=sum(item.kind is TrialKind.SEARCH for item in relevant),
            taken=frozenset(item.configuration.fingerprint for item in here if item.draft.seed == seed),
            observations=tuple(_with_worst_values(seen, measured)),
        )

    def generator(self, seed: int) -> np.random.Generator:
        """Random numbers that depend on the study's seed and the number of search trials, and on nothing else."""
        return np.random.default_rng(np.random.SeedSequence([seed, self.n_search]))


def measured_values(observations: Sequence[Observation], n_measured: int) -> npt.NDArray[np.float64]:
    """All-maximise measured values (n x number of measured objectives) of observations that have them."""
    rows = [item.values for item in observations]
    return np.array(rows, dtype=np.float64).reshape(len(observations), n_measured)


def exact_objectives(objectives: Sequence[Objective]) -> list[Objective]:
    """Those whose value is a closed form of the configuration."""
    return [item for item in objectives if item.is_known and item.name == "trainable_parameters"]


def measured_objectives(objectives: Sequence[Objective]) -> list[Objective]:
    """Those that only a trial can tell."""
    exact = exact_objectives(objectives)
    return [item for item in objectives if item not in exact]


def exact_values(trainable_parameters: int, objectives: Sequence[Objective]) -> list[float]:
    """All-maximise values of the exactly known objectives, on a logarithmic scale, log10(1 + count).

    Costs known in advance span orders of magnitude; a decade saved counts the same everywhere.
    """
    logarithm = math.log1p(trainable_parameters) / math.log(10)
    exact = exact_objectives(objectives)
    return [logarithm if item.direction is Direction.MAXIMIZE else -logarithm for item in exact]


def _observe(trial: Trial, measured: Sequence[Objective]) -> Observation | None:
    """The trial as evidence, worst values not yet filled in; None if it says nothing."""
    values: tuple[float, ...] | None = None
    if not trial.state.is_finished:
        evidence = Evidence.PENDING
    elif trial.state is TrialState.FAILED:
        if trial.failure is None or trial.failure.reason not in BLAMED_FAILURES:
            return None
        evidence = Evidence.FAILED
    else:
        natural = [value for item in measured if (value := trial.value(item.name)) is not None]
        if len(natural) < len(measured):
            return None
        evidence = Evidence.MEASURED if trial.state is TrialState.COMPLETE else Evidence.PRUNED
        values = tuple(float(value) for value in to_maximization(natural, measured))
    return Observation(
        number=trial.number,
        kind=trial.kind,
        evidence=evidence,
        configuration=trial.configuration,
        params=trial.draft.params,
        trainable_parameters=trial.draft.trainable_parameters,
        values=values,
    )


def _with_worst_values(seen: Sequence[Observation], measured: Sequence[Objective]) -> list[Observation]:
    """Give failures the worst measured value of each objective; drop them while nothing is measured."""
    successes = [item.values for item in seen if item.evidence is Evidence.MEASURED and item.values is not None]
    if not successes:
        return [item for item in seen if item.evidence is not Evidence.FAILED]
    worst = tuple(min(values[j] for values in successes) for j in range(len(measured)))
    return [replace(item, values=worst) if item.evidence is Evidence.FAILED else item for item in seen]
