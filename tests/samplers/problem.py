"""A search problem shaped like ours, without training: exact cost, noisy quality with diminishing returns."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from autopeft.configuration import BoundSpace, Configuration, load_search_space, parse_search_space
from autopeft.objectives import Direction, Objective, hypervolume
from autopeft.samplers import Sampler
from autopeft.study import Failure, Fidelity, Measurement, Trial, TrialDraft, TrialKind, TrialState
from tests.configuration.examples import FAMILIES_FILE, TYPES, bert_shapes
from tests.configuration.mixtures import KINDS

FIDELITY = Fidelity(train_examples=100, epochs=1)
ACCURACY = Objective(name="accuracy", direction=Direction.MAXIMIZE)
PARAMETERS = Objective(name="trainable_parameters", direction=Direction.MINIMIZE, unit="parameters", is_known=True)
SECONDS = Objective(name="wall_time_s", direction=Direction.MINIMIZE, unit="s")
BUDGET = 227_132
TINY_BUDGET = 9_000


def default_space(budget: int | None = BUDGET) -> BoundSpace:
    return BoundSpace(
        space=load_search_space(FAMILIES_FILE, TYPES), shapes=bert_shapes(), module_types=TYPES, budget=budget
    )


def tiny_space() -> BoundSpace:
    """Three families of at most four sizes on any of two layers: 27 configurations, not all of them affordable."""
    text = {
        "name": "tiny",
        "description": "A space that can be counted by hand.",
        "parameters": {
            "family": {"type": "categorical", "choices": ["lora", "adapter", "bias"]},
            "rank": {"type": "int", "low": 1, "high": 4, "when": {"family": "lora"}},
            "bottleneck": {"type": "int", "low": 1, "high": 4, "when": {"family": "adapter"}},
            "layer": {"type": "bool", "per_layer": True},
        },
        "modules": {
            "lora": {"when": {"family": "lora"}, "size": "rank", "parts": ["q", "v"]},
            "serial_adapter": {"when": {"family": "adapter"}, "size": "bottleneck", "parts": ["ffn"]},
            "bitfit": {"when": {"family": "bias"}, "parts": ["bias"]},
        },
        "layers": {"bits": "layer"},
        "learning_rate": 0.003,
        "budget": "reject",
    }
    space = parse_search_space(text, TYPES)
    return BoundSpace(space=space, shapes=bert_shapes(n_layers=2), module_types=TYPES, budget=TINY_BUDGET)


def small_space(budget: int | None = 60_000) -> BoundSpace:
    """Two families on any of three layers, with a continuous learning rate: quick to compile, not to exhaust."""
    text = {
        "name": "small",
        "description": "Two families with sizes, layer bits, a learning rate.",
        "parameters": {
            "lora": {"type": "bool"},
            "adapter": {"type": "bool"},
            "rank": {"type": "int", "low": 1, "high": 16, "log": True, "when": {"lora": True}},
            "parts": {"type": "categorical", "choices": ["qv", "all"], "when": {"lora": True}},
            "bottleneck": {"type": "int", "low": 1, "high": 32, "log": True, "when": {"adapter": True}},
            "layer": {"type": "bool", "per_layer": True},
            "rate": {"type": "float", "low": 0.0005, "high": 0.02, "log": True},
        },
        "modules": {
            "lora": {
                "when": {"lora": True},
                "size": "rank",
                "parts": {"parameter": "parts", "lists": {"qv": ["q", "v"], "all": ["q", "k", "v", "o", "up", "down"]}},
            },
            "serial_adapter": {"when": {"adapter": True}, "size": "bottleneck", "parts": ["ffn"]},
        },
        "layers": {"bits": "layer"},
        "learning_rate": "rate",
        "budget": "scale",
    }
    space = parse_search_space(text, TYPES)
    return BoundSpace(space=space, shapes=bert_shapes(n_layers=3), module_types=TYPES, budget=budget)


def options_space(budget: int | None = 60_000) -> BoundSpace:
    """Experts whose number, router and share of noise are searched, with or without dynamics."""
    text = {
        "name": "options",
        "description": "Mixtures of experts under dynamics.",
        "parameters": {
            "rank": {"type": "int", "low": 1, "high": 8, "log": True},
            "experts": {"type": "int", "low": 1, "high": 8, "log": True},
            "shape": {"type": "categorical", "choices": ["flat", "increasing"]},
            "top": {"type": "int", "low": 1, "high": 4},
            "router": {"type": "categorical", "choices": ["topk", "topp"]},
            "balance": {"type": "float", "low": 0.001, "high": 0.1, "log": True},
            "noisy": {"type": "bool", "per_layer": True},
            "moving": {"type": "categorical", "choices": ["static", "lisa", "hft"]},
            "n_layers": {"type": "int", "low": 1, "high": 2, "when": {"moving": "lisa"}},
            "rate": {"type": "float", "low": 0.0005, "high": 0.02, "log": True},
        },
        "modules": {
            "experts": {
                "size": "rank",
                "parts": ["q", "v"],
                "options": {
                    "experts": {"parameter": "experts", "profile": "shape"},
                    "top_k": {"parameter": "top"},
                    "router": {"parameter": "router"},
                    "balance": {"parameter": "balance"},
                    "noisy": {"parameter": "noisy"},
                },
            },
        },
        "layers": "all",
        "learning_rate": "rate",
        "budget": "scale",
        "dynamics": {
            "parameter": "moving",
            "rules": {"static": None, "lisa": {"layers": {"parameter": "n_layers"}}, "hft": {}},
        },
    }
    space = parse_search_space(text, KINDS)
    return BoundSpace(space=space, shapes=bert_shapes(n_layers=3), module_types=KINDS, budget=budget)


@dataclass(frozen=True)
class Problem:
    """Quality as a function of the configuration.

    Every layer saturates in the parameters it gets, weighted by how well its module types use them; upper layers
    matter more and neighbours are redundant; the best learning rate falls with the cost; a rate far too high collapses.

    Args:
        space: What is searched.
        seed: Of the importances and efficiencies.
        noise: Standard deviation of a measured accuracy.
    """

    space: BoundSpace
    seed: int
    noise: float = 0.006
    efficiency: dict[tuple[str, str], float] = field(init=False)
    importance: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        keys = sorted((name, part) for name, kind in self.space.module_types.items() for part in kind.parts)
        object.__setattr__(self, "efficiency", {key: float(rng.lognormal(0.0, 0.5)) for key in keys})
        n = self.space.shapes.n_layers
        weight = np.linspace(0.4, 1.0, n) * rng.lognormal(0.0, 0.4, n)
        object.__setattr__(self, "importance", weight / weight.sum())

    def true_accuracy(self, configuration: Configuration) -> float:
        shapes = self.space.shapes
        strength = np.zeros(shapes.n_layers)
        for item in configuration.placements:
            count = self.space.module_types[item.module.type].parameter_count(item.module, item.site, shapes)
            strength[item.site.layer] += self.efficiency[item.module.type, item.site.part] * np.sqrt(count / 3000)
        reached = 1 - np.exp(-strength)
        smeared = 0.6 * reached + 0.2 * np.append(reached[1:], 0.0) + 0.2 * np.append(0.0, reached[:-1])
        quality = 0.50 + 0.20 * float(self.importance @ smeared) / 0.9
        cost = self.space.parameter_count(configuration)
        best_rate = -2.0 - 0.25 * (np.log10(cost) - 4.0)
        off = np.log10(configuration.learning_rate) - best_rate
        quality -= 0.06 * off**2 + (0.15 if off > 0.55 else 0.0)
        return max(float(quality), 0.10)

    def measure(self, configuration: Configuration) -> tuple[float, float]:
        """Noisy accuracy and seconds; the noise belongs to the configuration, as a seed's does."""
        rng = np.random.default_rng([self.seed, zlib.crc32(configuration.fingerprint.encode())])
        seconds = 5.0 + 0.5 * len(configuration.placements) + 0.1 * rng.normal()
        return self.true_accuracy(configuration) + self.noise * rng.normal(), float(seconds)

    def score(self, trials: Sequence[Trial]) -> float:
        """Hypervolume of the true values over (accuracy, -log10 cost), from a fixed corner."""
        rows = [
            (self.true_accuracy(item.configuration), -np.log10(item.draft.trainable_parameters))
            for item in trials
            if item.state is TrialState.COMPLETE
        ]
        return hypervolume(rows, (0.50, -np.log10(2 * BUDGET)))


def make_trial(
    number: int,
    configuration: Configuration,
    space: BoundSpace,
    *,
    params: dict | None = None,
    values: tuple[float, float] | None = None,
    state: TrialState = TrialState.COMPLETE,
    kind: TrialKind = TrialKind.SEARCH,
    seed: int = 0,
    fidelity: Fidelity = FIDELITY,
    failure: str = "divergence",
) -> Trial:
    draft = TrialDraft(
        kind=kind,
        configuration=configuration,
        trainable_parameters=space.parameter_count(configuration),
        fidelity=fidelity,
        seed=seed,
        params=params,
    )
    measurements = ()
    if values is not None:
        measured = Measurement(
            split="search",
            fidelity=fidelity,
            seed=seed,
            metrics={"accuracy": values[0]},
            costs={"wall_time_s": values[1]},
        )
        measurements = (measured,)
    failed = state is TrialState.FAILED
    return Trial(
        number=number,
        draft=draft,
        state=state,
        measurements=measurements,
        failure=Failure(reason=failure, message="it failed") if failed else None,
    )


def run(sampler: Sampler, problem: Problem, n: int, *, batch: int = 1, seed: int = 0) -> list[Trial]:
    """Ask and measure until there are n trials, or the space is exhausted."""
    trials: list[Trial] = []
    while len(trials) < n:
        proposals = sampler.ask(trials, min(batch, n - len(trials)))
        if not proposals:
            break
        for item in proposals:
            configuration = problem.space.compile(item.params)
            trials.append(
                make_trial(
                    len(trials),
                    configuration,
                    problem.space,
                    params=item.params,
                    values=problem.measure(configuration),
                    seed=seed,
                )
            )
    return trials
