"""Configurations on another backbone; the oracles are the closed-form counts and layers counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopeft.configuration import Configuration, ModuleSpec, Site, parameter_count
from autopeft.samplers._earlier import EarlierStudy
from autopeft.samplers._translate import bring_here, translate
from tests.configuration.examples import TYPES, bert_shapes
from tests.samplers.earlier import draw_points, searched
from tests.samplers.problem import ACCURACY, Problem, default_space, small_space

SMALL, LARGE = bert_shapes(n_layers=3), bert_shapes(n_layers=6)


def lora(*layers: int, rank: int = 4, part: str = "q") -> Configuration:
    return Configuration.make(
        [(Site(layer=layer, part=part), ModuleSpec.make("lora", rank)) for layer in layers], learning_rate=1e-3
    )


def layers_of(configuration: Configuration | None) -> list[int | None]:
    assert configuration is not None
    return [item.site.layer for item in configuration.placements]


@pytest.mark.parametrize(
    ("n_there", "there", "n_here", "here"),
    [
        (3, (2,), 6, [4, 5]),
        (3, (0, 2), 6, [0, 1, 4, 5]),
        (6, (4, 5), 3, [2]),
        (6, (0, 1, 2, 3, 4, 5), 3, [0, 1, 2]),
        (12, (11,), 6, [5]),
        (6, (5,), 6, [5]),
    ],
)
def test_layers_are_matched_by_relative_depth(
    n_there: int, there: tuple[int, ...], n_here: int, here: list[int]
) -> None:
    shapes = bert_shapes(n_layers=n_here)
    found = translate(lora(*there), n_layers=n_there, share=0.001, shapes=shapes, module_types=TYPES)
    assert layers_of(found) == here


@given(rank=st.integers(1, 64), n_layers=st.integers(1, 12), seed=st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_the_share_of_the_parameters_is_kept_as_far_as_whole_ranks_allow(rank: int, n_layers: int, seed: int) -> None:
    chosen = sorted(np.random.default_rng(seed).choice(n_layers, size=max(1, n_layers // 2), replace=False).tolist())
    there = bert_shapes(n_layers=n_layers)
    configuration = lora(*chosen, rank=rank)
    share = parameter_count(configuration, there, TYPES) / there.parameters
    found = translate(configuration, n_layers=n_layers, share=share, shapes=LARGE, module_types=TYPES)
    if found is None:
        assert n_layers > 6  # every tuned layer fell between two of ours
        return
    wanted, got = share * LARGE.parameters, parameter_count(found, LARGE, TYPES)
    step = parameter_count(lora(*layers_of(found), rank=1), LARGE, TYPES)
    assert abs(got - wanted) <= step
    assert found.learning_rate == configuration.learning_rate


def test_a_module_that_cannot_stand_here_is_left_out() -> None:
    mixed = Configuration.make(
        [
            (Site(layer=0, part="q"), ModuleSpec.make("lora", 4)),
            (Site(layer=0, part="gate"), ModuleSpec.make("lora", 4)),
            (Site(layer=0, part="q"), ModuleSpec.make("unheard_of", 4)),
        ],
        learning_rate=1e-3,
    )
    found = translate(mixed, n_layers=6, share=0.001, shapes=LARGE, module_types=TYPES)
    assert found is not None
    assert [(item.site.part, item.module.type) for item in found.placements] == [("q", "lora")]


def test_nothing_left_is_none() -> None:
    strange = Configuration.make([(Site(layer=0, part="q"), ModuleSpec.make("unheard_of", 4))], learning_rate=1e-3)
    assert translate(strange, n_layers=6, share=0.001, shapes=LARGE, module_types=TYPES) is None
    head_only = Configuration.make([], learning_rate=1e-3)
    assert translate(head_only, n_layers=6, share=0.001, shapes=LARGE, module_types=TYPES) is None


def test_modules_without_a_size_are_taken_as_they_are() -> None:
    bias = Configuration.make([(Site(layer=2, part="bias"), ModuleSpec.make("bitfit"))], learning_rate=1e-3)
    assert layers_of(translate(bias, n_layers=3, share=0.1, shapes=LARGE, module_types=TYPES)) == [4, 5]


def earlier(n: int = 12) -> EarlierStudy:
    space = default_space()
    return searched(Problem(space, seed=0), "source", draw_points(space, n))


def test_a_study_of_the_same_space_is_taken_unchanged() -> None:
    study, space = earlier(), default_space()
    here = bring_here(study, space)
    assert [item.configuration for item in here] == [item.configuration for item in study.trials]
    assert [item.trainable_parameters for item in here] == [item.trainable_parameters for item in study.trials]


def test_what_exceeds_the_budget_here_is_left_out() -> None:
    study, space = earlier(), default_space(budget=50_000)
    here = bring_here(study, space)
    assert len(here) == sum(item.trainable_parameters <= 50_000 for item in study.trials) < 12


def test_types_that_this_space_does_not_search_are_left_out() -> None:
    study, space = earlier(40), small_space()
    here = bring_here(replace(study, n_layers=6), space)
    for item in here:
        assert set(item.configuration.module_types) <= {"lora", "serial_adapter"}
        assert item.trainable_parameters == space.parameter_count(item.configuration) <= 60_000
        assert max(layers_of(item.configuration)) <= 2
    assert 0 < len(here) < 40
    assert study.objectives == (ACCURACY,)
