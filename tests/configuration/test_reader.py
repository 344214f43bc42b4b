from typing import Any

import pytest

from autopeft.configuration._reader import Reader, describe, join, nearest


@pytest.mark.parametrize(
    ("method", "value", "message"),
    [
        ("text", 3, "key: must be text, but got 3."),
        ("text", "  ", "key: must be text, but got '  '."),
        ("flag", "yes", "key: must be true or false, but got 'yes'."),
        ("integer", 1.5, "key: must be a whole number, but got 1.5."),
        ("integer", True, "key: must be a whole number, but got true."),
        ("number", "5e-4x", "key: must be a number, but got '5e-4x'."),
        ("number", float("nan"), "key: must be finite, but got nan."),
        ("integer", 10**16, "key: must be at most 1,000,000,000,000,000 in size, but got 10000000000000000."),
        ("entries", [1], "key: must be a mapping, but got a list."),
        ("entries", None, "key: must be a mapping, but got nothing."),
        ("texts", [], "key: must be a list that is not empty, but got an empty list."),
        ("texts", "q", "key: must be a list that is not empty, but got 'q'."),
        ("texts", ["q", "q"], "key: must not repeat a name, but got q, q."),
        ("texts", ["q", 3], "key[1]: must be text, but got 3."),
    ],
)
def test_mistakes_are_remembered(method: str, value: Any, message: str) -> None:
    reader = Reader()
    getattr(reader, method)("key", value)
    assert reader.problems == [message]


def test_right_values_pass() -> None:
    reader = Reader()
    assert reader.text("k", " a ") == "a"
    assert reader.flag("k", True) is True
    assert reader.integer("k", 3, low=3) == 3
    assert reader.number("k", 3) == 3.0
    assert reader.texts("k", ["a", "b"]) == ("a", "b")
    assert reader.one_of("k", "a", ("a", "b"), "name") == "a"
    assert reader.mapping("k", {"a": 1}, required=("a",), optional=("b",)) == {"a": 1}
    assert reader.problems == []


def test_numbers_too_long_to_write() -> None:
    reader = Reader()
    assert reader.number("k", 10**5000) is None
    assert reader.integer("k", -(10**5000)) is None
    assert [problem.partition("but got ")[2] for problem in reader.problems] == [
        "a number with thousands of digits."
    ] * 2


def test_keys_are_checked_together() -> None:
    reader = Reader()
    found = reader.mapping("top", {"lwo": 1, 3: 4, "high": 2}, required=("low", "high"), optional=("log",))
    assert found == {"high": 2}
    assert reader.problems == [
        "top.3: a key must be text, but got 3.",
        "top.lwo: unknown key. Did you mean low or log? Known: low, high, log.",
        "top.low: is required, but missing.",
    ]


def test_low_bound_and_names() -> None:
    reader = Reader()
    assert reader.integer("k", 0, low=1) is None
    assert reader.one_of("k", "scal", ("scale", "reject"), "rule") is None
    assert reader.one_of("k", ["scale"], ("scale", "reject"), "rule") is None
    assert reader.problems == [
        "k: must be at least 1, but got 0.",
        "k: unknown rule 'scal'. Did you mean scale? Known: reject, scale.",
        "k: unknown rule a list. Known: reject, scale.",
    ]


def test_words() -> None:
    assert join("", "name") == "name"
    assert join("a", "b") == "a.b"
    assert nearest("rnak", ["rank", "parts"]) == " Did you mean rank?"
    assert nearest("zzz", ["rank"]) == ""
    assert describe({}) == "an empty mapping"
    assert describe("x" * 100) == "'" + "x" * 56 + "..."
