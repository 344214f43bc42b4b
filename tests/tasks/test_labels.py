"""Oracles: label columns written here, with the encoding they must get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autopeft.exceptions import TaskError
from autopeft.tasks._labels import encode_labels
from autopeft.tasks._readers import Table


def make_table(values: list[Any]) -> Table:
    return Table(
        path=Path("data.csv"),
        names=("text", "label"),
        column=lambda name: values,
        unit="line",
        numbers=range(2, len(values) + 2),
    )


def encode(values: list[Any], kind: str | None = None, keys: list[str] | None = None) -> Any:
    return encode_labels(make_table(values), "label", kind=kind, keys=keys or [str(row) for row in range(len(values))])


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["a", "b"] * 3, "classification"),
        (["0", "1"] * 3, "classification"),
        ([0, 1] * 3, "classification"),
        ([True, False] * 3, "classification"),
        ([0.5, 1.5] * 3, "classification"),
        (list(map(str, range(20))) * 2, "classification"),
        (list(map(str, range(21))) * 2, "regression"),
        ([row / 10 for row in range(11)] * 2, "regression"),
        ([f"{row / 10:.1f}" for row in range(11)] * 2, "regression"),
        ([f"{row}x" for row in range(30)] * 2, "classification"),
        ([*map(str, range(30)), "x"] * 2, "classification"),
        (["1_000", "2_000"] * 2, "classification"),
    ],
)
def test_kind_is_inferred(values: list[Any], kind: str) -> None:
    assert encode(values).kind == kind


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["b", " a ", "b", "a"], ("a", "b")),
        ([10, 9, 10, 9], ("9", "10")),
        (["10", "9", "10", "9"], ("9", "10")),
        ([1.0, 0.0, 1, 0], ("0", "1")),
        (["007", "7", "007", "7"], ("007", "7")),
        ([True, False, True, False], ("False", "True")),
        ([1, "x", 1, "x"], ("1", "x")),
        ([0.5, 0.25, 0.5, 0.25], ("0.25", "0.5")),
    ],
)
def test_class_names(values: list[Any], names: tuple[str, ...]) -> None:
    labels = encode(values, "classification")
    assert labels.names == names
    assert labels.targets.dtype == np.int64
    assert labels.targets[0] == labels.targets[2] != labels.targets[1] == labels.targets[3]
    expected = str(values[0]).strip()
    assert names[labels.targets[0]] in (expected, expected.removesuffix(".0"))


def test_values() -> None:
    labels = encode(["1", "2.5", "-3e1"], "regression")
    assert (labels.names, labels.targets.tolist(), labels.targets.dtype) == (None, [1.0, 2.5, -30.0], np.float64)


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        (["a", "", "b", None, "NaN", "a", float("nan")], None, r"4 of 7 have none \(lines 3, 5, 6, 8\)"),
        (["a", *[" "] * 20], None, r"20 of 21 have none \(lines 3, 4, 5, 6, 7, \.\.\.\)"),
        (["a"] * 5, None, r"data\.csv: every label in 'label' is 'a'.*at least two classes.*has text, label"),
        (["a", "b", "a"], None, r"1 of 2 classes have one: 'b' \(line 3\)"),
        ([str(row) for row in range(9)], "classification", r"9 of 9 classes.*and 4 more.*pass --kind regression"),
        ([["a"], "b"], None, r"line 2 holds a list"),
        ([b"a", "b"], None, r"line 2 holds a bytes"),
        (["1", "two", "three"], "regression", r"line 3 holds 'two' \(2 such rows\).*--kind classification"),
        (["1", "inf"], "regression", r"line 3 holds 'inf'"),
        ([True, False], "regression", r"line 2 holds True"),
        (["3"] * 4, "regression", r"every label in 'label' is '3', so there is nothing to predict"),
        ([10**400, 1], "regression", r"line 2 holds 1000"),
    ],
)
def test_useless_labels(values: list[Any], kind: str | None, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        encode(values, kind)


def test_one_example_repeated_is_one_example() -> None:
    with pytest.raises(TaskError, match="1 of 2 classes have one: 'b'"):
        encode(["a", "a", "b", "b"], keys=["1", "2", "3", "3"])
