"""Oracle: configurations that are known to be in the space, because they were drawn from it or written for it."""

import numpy as np
import pytest

from autopeft.configuration import LINEAR_PARTS, Configuration, ModuleSpec, Site
from autopeft.samplers._express import Recognizer, at_rate, express, structure_distance
from autopeft.samplers._points import PointSource
from tests.samplers.problem import default_space

SPACE = default_space()


def uniform(type_: str, size: int | None, parts: tuple[str, ...], rate: float = 5e-3, layers=range(6)) -> Configuration:
    spec = ModuleSpec.make(type_, size)
    pairs = [
        (Site(layer=layer, part=part), spec)
        for layer in layers
        for part in parts
        if part in SPACE.shapes.layers[layer].linears or part not in LINEAR_PARTS
    ]
    return Configuration.make(pairs, learning_rate=rate)


KNOWN_METHODS = {
    "LoRA on q,v": uniform("lora", 8, ("q", "v")),
    "LoRA on all linears": uniform("lora", 5, LINEAR_PARTS),
    "bottleneck adapters": uniform("serial_adapter", 24, ("ffn",)),
    "parallel adapters": uniform("parallel_adapter", 30, ("ffn",)),
    "BitFit": uniform("bitfit", None, ("bias",)),
    "(IA)3": uniform("ia3", None, ("k", "v", "down")),
    "prefix": uniform("prefix", 20, ("attention",)),
    "LoRA on the top half": uniform("lora", 16, ("q", "k", "v", "o"), layers=(3, 4, 5)),
}


@pytest.fixture(scope="module")
def points() -> PointSource:
    return PointSource(SPACE)


@pytest.mark.parametrize("name", KNOWN_METHODS)
def test_methods_people_use_are_found_exactly(points: PointSource, name: str) -> None:
    found = express(points, KNOWN_METHODS[name], seed=0)
    assert found.error == 0
    assert found.point.configuration == KNOWN_METHODS[name]


def test_the_answer_does_not_depend_on_what_was_asked_before(points: PointSource) -> None:
    wanted = KNOWN_METHODS["LoRA on the top half"]
    assert express(PointSource(SPACE), wanted, seed=3) == express(points, wanted, seed=3)


def test_what_is_not_in_the_space_is_approached(points: PointSource) -> None:
    """LoRA on q alone: the space has no such part list, so the nearest points carry something more or elsewhere."""
    wanted = uniform("lora", 8, ("q",))
    found = express(points, wanted, seed=0)
    assert found.error == structure_distance(found.point.configuration, wanted) > 0
    draws = points.draw(np.random.default_rng(0), 300, ())
    assert found.error <= min(structure_distance(item.configuration, wanted) for item in draws)


@pytest.mark.parametrize(
    "wanted",
    [
        Configuration.make([], learning_rate=1e-3),
        uniform("full", None, ("q", "v")),
        uniform("lora", 64, LINEAR_PARTS),
    ],
    ids=["nothing tuned", "another type", "above the budget"],
)
def test_the_impossible_is_not_searched_for(points: PointSource, wanted: Configuration) -> None:
    assert express(points, wanted, seed=0) is None


def test_rates_outside_the_range_are_moved_to_its_end(points: PointSource) -> None:
    point = points.draw(np.random.default_rng(0), 1, ())[0]
    assert at_rate(points, point, 1.0).configuration.learning_rate == 2e-2
    assert at_rate(points, point, 3e-3).configuration.learning_rate == 3e-3
    assert at_rate(points, point, 3e-3).configuration.placements == point.configuration.placements


def test_distance_counts_log_sizes_and_missing_modules() -> None:
    """log2(1 + 7) - log2(1 + 3) = 1 at each of 12 sites; an absent module of rank 3 is at distance log2(4) = 2."""
    assert structure_distance(uniform("lora", 7, ("q", "v")), uniform("lora", 3, ("q", "v"))) == pytest.approx(12)
    one, both = uniform("lora", 3, ("q",)), uniform("lora", 3, ("q", "v"), rate=1e-3)
    assert structure_distance(one, both) == structure_distance(both, one) == pytest.approx(6 * 2)
    assert structure_distance(both, uniform("lora", 3, ("q", "v"))) == 0


def test_distance_counts_options() -> None:
    scaled = ModuleSpec.make("lora", 3, scale=8.0)
    other = Configuration.make([(Site(layer=0, part="q"), scaled)], learning_rate=1e-3)
    assert structure_distance(uniform("lora", 3, ("q",), layers=(0,)), other) == 1


class TestRecognizer:
    def test_params_are_believed_only_if_they_compile_to_the_configuration(self, points: PointSource) -> None:
        one, other = points.draw(np.random.default_rng(1), 2, ())
        recognizer = Recognizer(points, seed=0)
        assert recognizer.find(one.configuration, one.params) == one
        assert recognizer.find(other.configuration, one.params) is None

    def test_baselines_are_found_at_their_learning_rates(self, points: PointSource) -> None:
        recognizer = Recognizer(points, seed=0)
        for rate in (1e-3, 5e-3):
            wanted = uniform("lora", 8, ("q", "v"), rate=rate)
            assert recognizer.find(wanted, None).configuration == wanted

    def test_a_baseline_at_a_rate_that_the_space_lacks_is_not_found(self, points: PointSource) -> None:
        assert Recognizer(points, seed=0).find(uniform("lora", 8, ("q", "v"), rate=0.5), None) is None

    def test_what_the_space_cannot_say_is_not_found(self, points: PointSource) -> None:
        recognizer = Recognizer(points, seed=0)
        assert recognizer.find(uniform("lora", 8, ("q",)), None) is None
        assert recognizer.find(Configuration.make([], learning_rate=1e-3), None) is None
