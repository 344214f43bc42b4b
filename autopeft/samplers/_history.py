"""What a sampler reads off the trials; the policies for failed, pruned and unfinished ones live here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from autopeft.configuration import KNOWN_COSTS, Configuration, OptionValue
from autopeft.objectives import Constraint, Objective, bounds_of, to_maximization
from autopeft.samplers._known import measured_objectives
from autopeft.samplers._rungs import RungGains
from autopeft.study import Fidelity, Trial, TrialDraft, TrialKind, TrialState

#: Failures that the configuration itself causes. A lost worker or a program error says nothing about quality.
BLAMED_FAILURES = frozenset({"divergence", "out_of_memory"})


class Evidence(StrEnum):
    """How a trial counts.

    MEASURED: completed with every objective; the only kind that can be a member of a front.
    PRUNED: stopped early with every objective; policy "extrapolated": its last value, moved by what completed trials
        gained from that rung to their end, with the spread of these gains as further noise (see `RungGains`).
    FAILED: diverged or ran out of memory. Where success can be modelled it counts as a failure to succeed and nothing
        else (policy "probability of success", see `Feasibility`); samplers that need a value take the worst measured
        one of each objective, and ignore it while nothing has been measured (policy "worst observed").
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
        values: All-maximise values of the measured objectives, in their order; None while PENDING; the worst measured
            ones if FAILED.
        noise_sd: Further standard deviations of `values`, beside what every measurement has; None for none.
        constrained: Natural values of what is constrained but only measured, in the order of these constraints, None
            where it was not measured; None while PENDING or FAILED.
    """

    number: int
    kind: TrialKind
    evidence: Evidence
    configuration: Configuration
    params: Mapping[str, OptionValue] | None
    trainable_parameters: int
    values: tuple[float, ...] | None
    noise_sd: tuple[float, ...] | None = None
    constrained: tuple[float | None, ...] | None = None


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
    def of(
        cls,
        trials: Sequence[Trial],
        *,
        objectives: Sequence[Objective],
        seed: int,
        fidelity: Fidelity,
        constraints: Sequence[Constraint] = (),
    ) -> History:
        """Read the trials.

        Args:
            trials: In any order; confirmations are ignored.
            objectives: Of the study; those that are not known exactly are read off the search split.
            seed: Of the study's search trials. Trials of another seed are observations but take no configuration.
            fidelity: Of the study's search trials.
            constraints: Of the study; those on known costs are ignored.
        """
        relevant = sorted(
            (item for item in trials if item.kind is not TrialKind.CONFIRMATION), key=lambda item: item.number
        )
        here = [item for item in relevant if item.draft.fidelity == fidelity]
        reader = _Reader(here, measured_objectives(objectives), learned_constraints(constraints))
        seen = [observation for item in here if (observation := reader.observe(item)) is not None]
        return cls(
            n_search=sum(item.kind is TrialKind.SEARCH for item in relevant),
            taken=frozenset(item.configuration.fingerprint for item in here if item.draft.seed == seed),
            observations=tuple(_with_worst_values(seen, len(reader.measured))),
        )

    def generator(self, seed: int, *, ahead: int = 0) -> np.random.Generator:
        """Random numbers that depend on the study's seed and the number of search trials, and on nothing else.

        Args:
            seed: Of the study.
            ahead: How many further search trials to count, which were suggested but are not among the trials yet.
        """
        return np.random.default_rng(np.random.SeedSequence([seed, self.n_search + ahead]))


class Outline:
    """No more than what is taken: for a sampler that learns nothing, and may be asked among very many trials.

    It reads only the trials that it was not shown the last time, unless one of the others is another one now.

    Args:
        seed: Of the study's search trials.
        fidelity: Of the study's search trials.
    """

    def __init__(self, *, seed: int, fidelity: Fidelity) -> None:
        self._seed = seed
        self._fidelity = fidelity
        self._seen: list[TrialDraft] = []
        self._n_search = 0
        self._taken: set[str] = set()

    def update(self, trials: Sequence[Trial]) -> History:
        """Read the trials.

        Args:
            trials: As for `History.of`; there are no observations in what is returned.
        """
        drafts = [item.draft for item in trials]
        # Fast where they are the very same objects, and right in any case.
        if drafts[: len(self._seen)] != self._seen:
            self._seen, self._n_search, self._taken = [], 0, set()
        for item in drafts[len(self._seen) :]:
            self._n_search += item.kind is TrialKind.SEARCH
            if item.seed == self._seed and item.kind is not TrialKind.CONFIRMATION and item.fidelity == self._fidelity:
                self._taken.add(item.configuration.fingerprint)
        self._seen = drafts
        return History(n_search=self._n_search, taken=frozenset(self._taken), observations=())


def learned_constraints(constraints: Sequence[Constraint]) -> list[Constraint]:
    """Those on quantities that only a trial can tell."""
    return [item for item in bounds_of(constraints) if item.name not in KNOWN_COSTS]


def measured_values(observations: Sequence[Observation], n_measured: int) -> npt.NDArray[np.float64]:
    """All-maximise measured values (n x number of measured objectives) of observations that have them."""
    rows = [item.values for item in observations]
    return np.array(rows, dtype=np.float64).reshape(len(observations), n_measured)


class _Reader:
    """Turns trials into observations."""

    def __init__(
        self, trials: Sequence[Trial], measured: Sequence[Objective], constraints: Sequence[Constraint]
    ) -> None:
        self.measured = measured
        self._constraints = constraints
        self._gains = RungGains(trials, [item.name for item in measured])

    def observe(self, trial: Trial) -> Observation | None:
        """The trial as evidence, worst values not yet filled in; None if it says nothing."""
        values: tuple[float, ...] | None = None
        noise: tuple[float, ...] | None = None
        constrained: tuple[float | None, ...] | None = None
        if not trial.state.is_finished:
            evidence = Evidence.PENDING
        elif trial.state is TrialState.FAILED:
            if trial.failure is None or trial.failure.reason not in BLAMED_FAILURES:
                return None
            evidence = Evidence.FAILED
        else:
            natural = [value for item in self.measured if (value := trial.value(item.name)) is not None]
            if len(natural) < len(self.measured):
                return None
            evidence = Evidence.MEASURED
            if trial.state is TrialState.PRUNED:
                evidence = Evidence.PRUNED
                natural, noise = self._gains.extrapolate(trial, natural)
            values = tuple(float(value) for value in to_maximization([natural], self.measured)[0])
            constrained = tuple(trial.value(item.name) for item in self._constraints)
        return Observation(
            number=trial.number,
            kind=trial.kind,
            evidence=evidence,
            configuration=trial.configuration,
            params=trial.draft.params,
            trainable_parameters=trial.draft.trainable_parameters,
            values=values,
            noise_sd=noise,
            constrained=constrained if evidence is Evidence.MEASURED else None,
        )


def _with_worst_values(seen: Sequence[Observation], n_measured: int) -> list[Observation]:
    """Give failures the worst measured value of each objective; drop them while nothing is measured."""
    successes = [item.values for item in seen if item.evidence is Evidence.MEASURED and item.values is not None]
    if not successes:
        return [item for item in seen if item.evidence is not Evidence.FAILED]
    worst = tuple(min(values[j] for values in successes) for j in range(n_measured))
    return [replace(item, values=worst) if item.evidence is Evidence.FAILED else item for item in seen]
