from collections import Counter
from typing import Any

import numpy as np
import pytest

from autopeft.configuration import parse_search_space
from autopeft.configuration._draw import Drawer
from autopeft.configuration._expand import expand
from tests.configuration.examples import TYPES


def drawer(parameters: dict[str, Any], n_layers: int = 6, **changes: Any) -> Drawer:
    """A drawer for some parameters; every one is used by a condition or as a rate, which is all that matters here."""
    definition: dict[str, Any] = {
        "name": "draws",
        "description": "For drawing.",
        "parameters": {"rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}, **parameters},
        "modules": {"lora": {"size": 4, "parts": ["q"]}},
        "layers": "all",
        "learning_rate": "rate",
        "budget": "scale",
        **changes,
    }
    space = parse_search_space(definition, TYPES)
    return Drawer.make(space, expand(space, n_layers))


def draws(drawer: Drawer, n: int = 4000) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [drawer.draw(rng) for _ in range(n)]


def test_gates_draw_the_number_of_layers_uniformly_and_never_none() -> None:
    found = draws(drawer({"bit": {"type": "bool", "per_layer": True}}, layers={"bits": "bit"}))
    counts = Counter(sum(point[f"bit_{layer}"] for layer in range(6)) for point in found)
    assert set(counts) == {1, 2, 3, 4, 5, 6}
    assert all(abs(count / 4000 - 1 / 6) < 0.025 for count in counts.values())
    for layer in range(6):
        assert abs(np.mean([point[f"bit_{layer}"] for point in found]) - 3.5 / 6) < 0.03


def test_other_vectors_may_be_all_off() -> None:
    found = draws(
        drawer(
            {"bit": {"type": "bool", "per_layer": True}},
            modules={"lora": {"when": {"bit": True}, "size": 4, "parts": ["q"]}},
        )
    )
    counts = Counter(sum(point[f"bit_{layer}"] for layer in range(6)) for point in found)
    assert set(counts) == {0, 1, 2, 3, 4, 5, 6}
    assert all(abs(count / 4000 - 1 / 7) < 0.025 for count in counts.values())


def test_few_families_are_drawn_more_often_than_many() -> None:
    """Oracle: P(k families) = (1 / k) / (1 + 1/2 + 1/3) = 6/11, 3/11, 2/11."""
    families = ("lora", "prefix", "bitfit")
    parts = {"lora": ["q"], "prefix": ["attention"], "bitfit": ["bias"]}
    modules = {
        name: {"when": {name: True}, "parts": parts[name], **({"size": 4} if name != "bitfit" else {})}
        for name in families
    }
    found = draws(drawer({name: {"type": "bool"} for name in families}, modules=modules))
    counts = Counter(sum(point[name] for name in families) for point in found)
    for k, expected in ((1, 6 / 11), (2, 3 / 11), (3, 2 / 11)):
        assert abs(counts[k] / 4000 - expected) < 0.03
    for name in families:
        assert abs(np.mean([point[name] for point in found]) - np.mean([point["lora"] for point in found])) < 0.04


@pytest.mark.parametrize("log", [False, True])
def test_integers_reach_both_ends(log: bool) -> None:
    found = draws(
        drawer(
            {"rank": {"type": "int", "low": 1, "high": 8, "log": log}},
            modules={"lora": {"size": "rank", "parts": ["q"]}},
        )
    )
    counts = Counter(point["rank"] for point in found)
    assert set(counts) == set(range(1, 9))
    # Oracle: P(value) is the width of [value - 1/2, value + 1/2] on the scale.
    for value in counts:
        width = np.log((value + 0.5) / (value - 0.5)) / np.log(8.5 / 0.5) if log else 1 / 8
        assert abs(counts[value] / 4000 - width) < 0.03


def test_log_floats_are_uniform_in_the_logarithm() -> None:
    rates = np.log10([point["rate"] for point in draws(drawer({}))])
    assert rates.min() >= -4
    assert rates.max() <= -2
    assert abs(np.mean(rates) + 3) < 0.05
    assert abs(np.std(rates) - 2 / np.sqrt(12)) < 0.03
