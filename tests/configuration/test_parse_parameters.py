from typing import Any

import pytest

from autopeft.configuration import Parameter
from autopeft.configuration._parse_parameters import parse_parameters
from autopeft.configuration._reader import Reader


def parse(definition: Any) -> tuple[dict[str, Parameter], list[str]]:
    reader = Reader()
    return parse_parameters(reader, definition), reader.problems


def test_parents_come_first_whatever_the_order() -> None:
    found, problems = parse(
        {
            "size": {"type": "int", "low": 1, "high": 4, "log": True, "when": {"deep": True}},
            "deep": {"type": "bool", "when": {"on": True}},
            "on": {"type": "bool"},
        }
    )
    assert problems == []
    assert list(found) == ["on", "deep", "size"]
    assert found["size"] == Parameter(
        name="size", type="int", low=1, high=4, log=True, condition=found["size"].condition
    )
    assert found["size"].condition is not None
    assert found["size"].condition.terms == (("deep", (True,)),)


@pytest.mark.parametrize(
    ("definition", "messages"),
    [
        ([], ["parameters: must be a mapping, but got an empty list."]),
        ({"a": 3}, ["parameters.a: must be a mapping, but got 3."]),
        ({"a": {}}, ["parameters.a.type: is required, but missing. Known: bool, int, float, categorical."]),
        ({"a": {"type": "boolean"}}, ["parameters.a.type: unknown parameter type 'boolean'. Did you mean bool?"]),
        ({"a": {"type": ["bool"]}}, ["parameters.a.type: unknown parameter type a list."]),
        ({"A": {"type": "bool"}}, ["parameters.A: must consist of lower-case letters"]),
        ({"a": {"type": "bool", "low": 1}}, ["parameters.a.low: unknown key."]),
        ({"a": {"type": "int", "low": 1}}, ["parameters.a.high: is required, but missing."]),
        (
            {"a": {"type": "int", "low": 1.5, "high": "x"}},
            [
                "parameters.a.low: must be a whole number, but got 1.5.",
                "parameters.a.high: must be a whole number, but got 'x'.",
            ],
        ),
        (
            {"a": {"type": "int", "low": 4, "high": 4}},
            ["parameters.a.low: must be below high, but got low 4 and high 4."],
        ),
        (
            {"a": {"type": "float", "low": 0, "high": 1, "log": True}},
            ["parameters.a.low: must be positive on a log scale, but got 0."],
        ),
        ({"a": {"type": "float", "low": 0, "high": float("inf")}}, ["parameters.a.high: must be finite, but got inf."]),
        ({"a": {"type": "int", "low": 0, "high": 10**6}}, ["parameters.a.high: is more than 65,536 above low"]),
        ({"a": {"type": "categorical"}}, ["parameters.a.choices: is required, but missing."]),
        ({"a": {"type": "categorical", "choices": []}}, ["parameters.a.choices: must not be empty."]),
        ({"a": {"type": "categorical", "choices": "qv"}}, ["parameters.a.choices: must be a list, but got 'qv'."]),
        (
            {"a": {"type": "categorical", "choices": ["x", "x", [1], True, 1]}},
            [
                "parameters.a.choices[1]: repeats 'x'.",
                "parameters.a.choices[2]: must be a single value, but got a list.",
                "parameters.a.choices[4]: repeats 1.",
            ],
        ),
        ({"a": {"type": "bool", "per_layer": 1}}, ["parameters.a.per_layer: must be true or false, but got 1."]),
        ({"a": {"type": "bool", "layer_groups": 0}}, ["parameters.a.layer_groups: must be at least 1, but got 0."]),
        (
            {"a": {"type": "bool", "per_layer": True, "layer_groups": 4}},
            ["parameters.a.layer_groups: must be left out with per_layer: true."],
        ),
        (
            {"a": {"type": "bool", "per_layer": True}, "a_0": {"type": "bool"}},
            ["parameters.a_0: is the name of an entry of a, which has one per layer."],
        ),
        ({"a": {"type": "bool", "when": "b"}}, ["parameters.a.when: must be a mapping, but got 'b'."]),
        ({"a": {"type": "bool", "when": {}}}, ["parameters.a.when: must name at least one parameter"]),
        (
            {"lora": {"type": "bool"}, "a": {"type": "bool", "when": {"loar": True}}},
            ["parameters.a.when.loar: unknown parameter. Did you mean lora? Known: a, lora."],
        ),
        (
            {"b": {"type": "bool"}, "a": {"type": "bool", "when": {"b": 1}}},
            ["parameters.a.when.b: 1 is no value of it; it has false, true."],
        ),
        (
            {"b": {"type": "int", "low": 1, "high": 4}, "a": {"type": "bool", "when": {"b": [2, 9]}}},
            ["parameters.a.when.b: 9 is no value of it; it has 1 to 4."],
        ),
        ({"b": {"type": "bool"}, "a": {"type": "bool", "when": {"b": []}}}, ["must list at least one value."]),
        (
            {"b": {"type": "float", "low": 0, "high": 1}, "a": {"type": "bool", "when": {"b": 1}}},
            ["parameters.a.when.b: a condition needs a parameter with separate values, but this is a float."],
        ),
        (
            {"b": {"type": "bool", "per_layer": True}, "a": {"type": "bool", "when": {"b": True}}},
            ["parameters.a.when.b: has a value per layer, which a has not in the same way."],
        ),
        (
            {
                "a": {"type": "bool", "when": {"c": True}},
                "b": {"type": "bool", "when": {"a": True}},
                "c": {"type": "bool", "when": {"b": True}},
            },
            ["conditions form a cycle: a -> c -> b -> a."],
        ),
        ({"a": {"type": "bool", "when": {"a": True}}}, ["parameters.a.when: conditions form a cycle: a -> a."]),
    ],
)
def test_mistakes(definition: Any, messages: list[str]) -> None:
    _, problems = parse(definition)
    assert len(problems) == len(messages), problems
    for problem, message in zip(problems, messages, strict=True):
        assert message in problem


def test_mistakes_of_all_parameters_are_reported_conditions_included() -> None:
    _, problems = parse(
        {
            "a": {"type": "int", "low": 4, "high": 1, "when": {"zz": True}},
            "b": {"type": "float", "low": "x", "high": 1},
            "c": {"type": "what", "when": {"yy": True}},
        }
    )
    keys = [problem.split(":")[0] for problem in problems]
    assert keys == [
        "parameters.a.low",
        "parameters.b.low",
        "parameters.c.type",
        "parameters.a.when.zz",
        "parameters.c.when.yy",
    ]
