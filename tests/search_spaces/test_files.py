"""Every packaged search space on an encoder and a decoder: it compiles, counts right, and trains."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from autopeft.backbones import Backbone
from autopeft.configuration import (
    BoundSpace,
    Configuration,
    list_search_spaces,
    load_search_space,
    n_frozen,
    parse_budget,
    uniform_scores,
)
from autopeft.modules import MODULES, inject
from autopeft.training import TrialRunner
from tests.configuration.examples import bert_shapes
from tests.tiny import tiny_backbone
from tests.training.dynamics.recorded import Step, layers_of, modules_of, watch
from tests.training.toys import job, toy_runner, toy_task

NAMES = tuple(item.name for item in list_search_spaces())
N_POINTS, N_TRAINED = 100, 10
backbone_of = functools.cache(tiny_backbone)


def bind(name: str, backbone: Backbone) -> BoundSpace:
    """A space on a backbone, with uniform scores where sizes follow scores."""
    space = load_search_space(name, MODULES)
    bound = BoundSpace(space=space, shapes=backbone.shapes, module_types=MODULES)
    return bound.with_scores(uniform_scores(space.score_sources, backbone.shapes))


@functools.cache
def compiler(name: str, architecture: str) -> BoundSpace:
    return bind(name, backbone_of(architecture))


@functools.cache
def sampled(name: str, architecture: str) -> tuple[Configuration, ...]:
    bound = compiler(name, architecture)
    rng = np.random.default_rng(0)
    return tuple(bound.compile(bound.sample(rng)) for _ in range(N_POINTS))


def spread(configurations: tuple[Configuration, ...]) -> list[Configuration]:
    """Some of them that differ, the first ones first."""
    return list(itertools.islice({item.fingerprint: item for item in configurations}.values(), N_TRAINED))


@pytest.mark.parametrize("architecture", ["bert", "llama"])
@pytest.mark.parametrize("name", NAMES)
def test_points_compile_and_count(name: str, architecture: str) -> None:
    """Oracle: the tensors of the injected modules. What is counted while compiling is the closed form, too."""
    backbone: Backbone = backbone_of(architecture)
    bound = bind(name, backbone)
    distinct = {item.fingerprint: item for item in sampled(name, architecture)}.values()
    assert len(distinct) > 1
    for configuration in distinct:
        with inject(backbone, [configuration], seeds=[0]) as injection:
            counted = compiler(name, architecture).parameter_count(configuration)
            assert injection.candidate_parameter_count(0) == bound.parameter_count(configuration) == counted


@functools.cache
def runner_of(architecture: str) -> TrialRunner:
    """Trains for one step of eight examples."""
    return toy_runner(architecture, toy_task(n_train=8, n_search=4, n_report=2))


@pytest.mark.parametrize("architecture", ["bert", "llama"])
@pytest.mark.parametrize("name", NAMES)
def test_points_train_a_step_with_their_dynamics(monkeypatch: pytest.MonkeyPatch, name: str, architecture: str) -> None:
    """As a search trains them. Oracle of the dynamics: what the optimizer did and did not touch."""
    steps = watch(monkeypatch)
    runner = runner_of(architecture)
    chosen = spread(sampled(name, architecture))
    for configuration in chosen:
        steps.clear()
        (outcome,) = runner.run([job(configuration, n=8, epochs=1)])
        assert outcome.failure is None, outcome.failure.traceback
        (step,) = steps
        assert torch.isfinite(step.norms).all()
        assert any(key.startswith("head.") for key in step.changed())
        count = bind(name, runner.backbone).parameter_count(configuration)
        check_dynamics(configuration, step, outcome.curve[-1].metrics, count)
    rule = load_search_space(name, MODULES).dynamics
    kinds = {None if item.dynamics is None else item.dynamics.type for item in chosen}
    assert kinds - {None} == set() if rule is None else kinds & {item.type for _, item in rule.choices if item}


def check_dynamics(configuration: Configuration, step: Step, metrics: Mapping[str, float], count: int) -> None:
    """What one step may have trained, and what it must have."""
    trained = modules_of(step.changed())
    everything = modules_of({name for name, _ in step.before})
    layers = layers_of({f"{key}." for key in trained})
    spec = configuration.dynamics
    if spec is None:
        # Sparse entries that gradients choose wait for the first batches.
        waiting = {key for key in everything if key.endswith(".sparse")}
        assert everything - waiting <= trained
    elif spec.type in ("lisa", "ist"):
        assert len(layers) == spec.option("layers", 2) < len(layers_of({f"{key}." for key in everything}))
        assert trained == {key for key in everything if int(key.split(".")[1]) in layers}
        assert spec.type == "lisa" or all(f"dynamics.importance_{layer}" in metrics for layer in range(3))
    elif spec.type == "hft":
        assert len(everything) - len(trained) == n_frozen(float(spec.option("share", 0.5)), len(everything))
    else:
        # The only step is the one that is estimated over; what is least important goes after it.
        assert spec.type == "early_pruning"
        assert 0 <= metrics["dynamics.trainable_parameters"] < count


def test_the_default_space_stays_small_enough_to_search() -> None:
    """At most 25 active dimensions on a 12-layer backbone."""
    bound = bind("default", tiny_backbone("bert", n_layers=12))
    rng = np.random.default_rng(0)
    assert max(len(bound.sample(rng)) for _ in range(500)) <= 25


def test_the_default_space_at_one_percent_is_distinct_and_feasible() -> None:
    """On MiniLM's shapes, of a thousand points at least nine hundred are distinct and feasible."""
    shapes = bert_shapes()
    bound = BoundSpace(
        space=load_search_space("default", MODULES),
        shapes=shapes,
        module_types=MODULES,
        budget=parse_budget("1%", shapes.parameters),
    )
    rng = np.random.default_rng(0)
    points = [bound.draw(rng) for _ in range(1000)]
    assert len({bound.compile(point).fingerprint for point in points if bound.is_feasible(point)}) >= 900
