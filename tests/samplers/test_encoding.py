"""Oracles: the invariants of the encoding, and its counts written out for one configuration."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopeft.configuration import BoundSpace, Configuration, ModuleSpec, Site, load_search_space
from autopeft.modules import MODULES
from autopeft.samplers._encoding import Encoder, tuned_layers
from autopeft.samplers._points import PointSource
from autopeft.samplers._values import random_value
from tests.configuration.examples import TYPES, bert_shapes
from tests.samplers.problem import BUDGET, default_space, make_trial, options_space

SPACE = default_space()
ENCODER = Encoder(SPACE)
OPTIONS = options_space()
seeds = st.integers(0, 2**32 - 1)


@given(seed=seeds)
def test_inactive_parameters_do_not_matter(seed: int) -> None:
    """The same point with any values of the parameters that it does not use has the same code."""
    rng = np.random.default_rng(seed)
    points = PointSource(SPACE)
    point = points.draw(rng, 1, ())[0]
    silent = {item.name: random_value(item, rng) for item in SPACE.parameters}
    noisy = points.make({**silent, **point.params})
    assert len(silent) > len(point.params)
    assert np.array_equal(ENCODER.encode([point]), ENCODER.encode([noisy]))


@given(seed=seeds)
def test_points_that_compile_equally_have_equal_codes(seed: int) -> None:
    """All layers chosen one by one, or as the top 100 %: different parameters are active, nothing else differs."""
    rng = np.random.default_rng(seed)
    points = PointSource(SPACE)
    params = points.draw(rng, 1, ())[0].params
    one = points.make(points.complete({**params, "layer_rule": "top", "top_share": 1.0}, rng))
    bits = {f"layer_{i}": True for i in range(6)}
    other = points.make(points.complete({**params, "layer_rule": "chosen", **bits}, rng))
    if one is None or other is None:
        assert one is other
        return
    assert one.params != other.params
    assert one.configuration == other.configuration
    assert np.array_equal(ENCODER.encode([one]), ENCODER.encode([other]))


@given(seed=seeds)
def test_codes_lie_in_the_unit_cube_and_tell_the_cost(seed: int) -> None:
    points = PointSource(SPACE).draw(np.random.default_rng(seed), 5, ())
    x = ENCODER.encode(points)
    assert x.min() >= 0
    assert x.max() <= 1
    assert x[:, 0] * math.log1p(BUDGET) == pytest.approx([math.log1p(point.trainable_parameters) for point in points])


@pytest.mark.parametrize("change", ["learning_rate", "lora_rank", "lora_parts", "lora", "layer_0"])
def test_active_parameters_do_matter(change: str) -> None:
    base = {name: name == "lora" for name in ("lora", "serial_adapter", "parallel_adapter", "prefix", "ia3", "bitfit")}
    base |= {"lora_rank": 2, "lora_parts": "query_value", "lora_profile": "flat", "layer_rule": "chosen"}
    base |= {f"layer_{i}": True for i in range(6)} | {"learning_rate": 2e-3}
    changes = {
        "learning_rate": {"learning_rate": 4e-3},
        "lora_rank": {"lora_rank": 3},
        "lora_parts": {"lora_parts": "value_output"},  # same cost, same side, other parts
        "lora": {"lora": False, "ia3": True},
        "layer_0": {"layer_0": False},
    }
    points = PointSource(SPACE)
    left, right = points.make(base), points.make({**base, **changes[change]})
    assert not np.allclose(*ENCODER.encode([left, right]))


def test_columns_of_a_configuration_written_out() -> None:
    """LoRA of rank 4 on q and v of layer 1, a bottleneck of 8 on layer 5; six layers, hidden size 384."""
    lora, adapter = ModuleSpec.make("lora", 4), ModuleSpec.make("serial_adapter", 8)
    pairs = [(Site(layer=1, part=part), lora) for part in ("q", "v")] + [(Site(layer=5, part="ffn"), adapter)]
    configuration = Configuration.make(pairs, learning_rate=math.sqrt(5e-4 * 2e-2))
    trial = make_trial(0, configuration, SPACE)

    class Item:
        configuration = trial.configuration
        trainable_parameters = trial.draft.trainable_parameters

    n_lora, n_adapter = 2 * 4 * 768, 2 * 384 * 8 + 8 + 384
    cap = math.log1p(BUDGET)
    row = ENCODER.encode([Item()])[0]
    assert row[:4] == pytest.approx([math.log1p(n_lora + n_adapter) / cap, 0.5, 2 / 6, n_lora / (n_lora + n_adapter)])
    assert row[4:10] == pytest.approx([0, math.log1p(n_lora) / cap, 0, 0, 0, math.log1p(n_adapter) / cap])
    types = dict(zip(sorted(TYPES), row[10:16], strict=True))
    assert types["lora"] == pytest.approx(math.log1p(n_lora) / cap)
    assert types["serial_adapter"] == pytest.approx(math.log1p(n_adapter) / cap)
    assert sum(value > 0 for value in types.values()) == 2
    assert sorted(row[16:][row[16:] > 0]) == pytest.approx(
        sorted(0.3 * math.log1p(n) / cap for n in (n_lora / 2, n_lora / 2, n_adapter))
    )


@given(seed=seeds)
def test_layer_bits_are_read_off_the_layers_columns(seed: int) -> None:
    """A layer's column is zero exactly where the layer is not tuned."""
    for point in PointSource(SPACE).draw(np.random.default_rng(seed), 3, ()):
        bits = ENCODER.encode([point])[0, 4:10] > 0
        assert np.flatnonzero(bits).tolist() == tuned_layers(point.configuration)


@pytest.mark.parametrize(("profile", "rises"), [("increasing", True), ("decreasing", False)])
def test_profiles_are_read_off_the_layers_columns(profile: str, rises: bool) -> None:
    params = {
        name: name == "lora" for name in ("lora", "serial_adapter", "parallel_adapter", "prefix", "ia3", "bitfit")
    }
    params |= {"lora_rank": 4, "lora_parts": "query_value", "lora_profile": profile, "layer_rule": "chosen"}
    params |= {f"layer_{i}": True for i in range(6)} | {"learning_rate": 2e-3}
    columns = ENCODER.encode([PointSource(SPACE).make(params)])[0, 4:10]
    assert (np.diff(columns) >= 0).all() == rises
    assert (np.diff(columns) <= 0).all() != rises


@settings(deadline=None)  # the first compilation fills caches
@given(seed=seeds)
def test_distances_of_spaces_with_options_are_those_of_compiled_configurations(seed: int) -> None:
    """Experts, routers and dynamics: equal configurations, whatever the points, have equal codes within [0, 1]."""
    rng = np.random.default_rng(seed)
    points = PointSource(OPTIONS)
    point = points.draw(rng, 1, ())[0]
    silent = {item.name: random_value(item, rng) for item in OPTIONS.parameters}
    again = points.make({**silent, **point.params})
    x = Encoder(OPTIONS).encode([point, again])
    assert (x[0] == x[1]).all()
    assert x.min() >= 0
    assert x.max() <= 1


def test_deep_backbones_share_columns_among_neighbouring_layers() -> None:
    space = BoundSpace(
        space=load_search_space("autopeft", TYPES), shapes=bert_shapes(n_layers=24), module_types=TYPES, budget=None
    )
    encoder = Encoder(space)
    spec = ModuleSpec.make("prefix", 3)

    def row(layer: int) -> list[float]:
        configuration = Configuration.make([(Site(layer=layer, part="attention"), spec)], learning_rate=1e-3)
        return encoder.encode([PointLike(configuration, space)])[0, 4:12].tolist()

    assert row(0) == row(2) != row(3)
    assert row(23)[7] > 0


class PointLike:
    def __init__(self, configuration: Configuration, space: BoundSpace) -> None:
        self.configuration = configuration
        self.trainable_parameters = space.parameter_count(configuration)


def test_what_the_space_does_not_search_is_not_encoded() -> None:
    full = Configuration.make([(Site(layer=0, part="q"), ModuleSpec.make("full"))], learning_rate=1e-4)
    head_only = Configuration.make([], learning_rate=1e-3)
    lora = Configuration.make([(Site(layer=0, part="q"), ModuleSpec.make("lora", 1))], learning_rate=1e-3)
    assert [ENCODER.can_encode(item) for item in (full, head_only, lora)] == [False, False, True]


def test_a_fixed_learning_rate_is_a_constant_column() -> None:
    space = BoundSpace(
        space=load_search_space("autopeft", TYPES), shapes=bert_shapes(), module_types=TYPES, budget=None
    )
    points = PointSource(space).draw(np.random.default_rng(0), 5, ())
    assert Encoder(space).encode(points)[:, 1].tolist() == [0.5] * 5


def test_tuned_layers_are_listed_once() -> None:
    spec = ModuleSpec.make("lora", 1)
    pairs = [(Site(layer=layer, part=part), spec) for layer in (3, 1) for part in ("q", "v")]
    assert tuned_layers(Configuration.make(pairs, learning_rate=1e-3)) == [1, 3]


def test_what_stands_outside_the_layers_is_no_part_of_the_bottom_one() -> None:
    """Oracle: the columns of the layers, of a point of LISA's space with and without embeddings trained."""
    shapes = dataclasses.replace(bert_shapes(), embedding_parameters=1000)
    space = BoundSpace(space=load_search_space("lisa", MODULES), shapes=shapes, module_types=MODULES, budget=None)
    points = PointSource(space)
    params = dict(points.draw(np.random.default_rng(0), 1, ())[0].params)
    without, with_it = (points.make({**params, "embeddings": chosen}) for chosen in (False, True))
    rows = Encoder(space).encode([without, with_it])
    assert (rows[0, 4:10] == rows[1, 4:10]).all()
    assert rows[0, 2] == rows[1, 2]
    assert not np.allclose(rows[0], rows[1])
