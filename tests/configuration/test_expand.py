import numpy as np
import pytest

from autopeft.configuration import Condition, Parameter, parse_search_space
from autopeft.configuration._expand import Point, entry_name, expand, holds, plain


def space(**groups: object):
    return parse_search_space(
        {
            "name": "vectors",
            "description": "A rank for each layer or group that is on.",
            "parameters": {
                "on": {"type": "bool", **groups},
                "rank": {"type": "int", "low": 1, "high": 4, "when": {"on": True}, **groups},
            },
            "modules": {"lora": {"when": {"on": True}, "size": "rank", "parts": ["q"]}},
            "layers": "all",
            "learning_rate": 1e-3,
            "budget": "scale",
        }
    )


def test_one_entry_per_layer_with_its_own_condition() -> None:
    dimensions = expand(space(per_layer=True), 3)
    assert [item.name for item in dimensions] == ["on_0", "on_1", "on_2", "rank_0", "rank_1", "rank_2"]
    assert [item.condition.terms for item in dimensions if item.condition] == [
        ((f"on_{index}", (True,)),) for index in range(3)
    ]
    assert {item.vector for item in dimensions} == {"on", "rank"}
    assert not any(item.is_vector for item in dimensions)


@pytest.mark.parametrize(
    ("groups", "n_layers", "expected"),
    [(8, 6, [0, 1, 2, 3, 4, 5]), (4, 6, [0, 0, 1, 2, 2, 3]), (3, 7, [0, 0, 0, 1, 1, 2, 2]), (1, 3, [0, 0, 0])],
)
def test_groups_are_runs_of_layers(groups: int, n_layers: int, expected: list[int]) -> None:
    declared = space(layer_groups=groups)
    parameter = declared.parameters[0]
    assert [entry_name(parameter, layer, n_layers) for layer in range(n_layers)] == [f"on_{i}" for i in expected]
    dimensions = {item.name for item in expand(declared, n_layers) if item.vector == "on"}
    assert dimensions == {f"on_{i}" for i in expected}


def test_a_condition_on_an_inactive_parameter_does_not_hold() -> None:
    condition = Condition(terms=(("a", (True,)), ("b", ("x", "y"))))
    assert holds(None, {})
    assert holds(condition, {"a": True, "b": "y"})
    assert not holds(condition, {"a": True})
    assert not holds(condition, {"a": 1, "b": "y"})
    assert not holds(condition, {"a": True, "b": "z"})


def test_a_point_is_read_layer_by_layer() -> None:
    declared = {item.name: item for item in space(layer_groups=2).parameters}
    point = Point(declared=declared, values={"on_0": False, "on_1": True, "rank_1": 3}, n_layers=4)
    assert [point.value("on", layer) for layer in range(4)] == [False, False, True, True]
    condition = Condition(terms=(("on", (True,)),))
    assert point.layers_where(condition, range(4)) == [2, 3]
    assert point.layers_where(condition, [0, 3]) == [3]
    assert point.layers_where(None, range(4)) == [0, 1, 2, 3]
    assert point.value("rank", 3) == 3


@pytest.mark.parametrize(("is_on", "layers"), [(True, [1, 3]), (False, [])])
def test_a_condition_without_vectors_holds_everywhere_or_nowhere(is_on: bool, layers: list[int]) -> None:
    point = Point(declared={"on": Parameter(name="on", type="bool")}, values={"on": is_on}, n_layers=4)
    assert point.layers_where(Condition(terms=(("on", (True,)),)), [1, 3]) == layers


def test_numpy_scalars_become_plain() -> None:
    assert plain(np.int64(3)) == 3
    assert type(plain(np.int64(3))) is int
    assert plain(np.bool_(True)) is True
    assert plain("text") == "text"


def test_parameter_is_declared_once() -> None:
    with pytest.raises(AttributeError):
        Parameter(name="p", type="bool").name = "q"  # type: ignore[misc]
