"""Labels of the user's file: classes or values, checked before anything is trained."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from autopeft.exceptions import TaskError
from autopeft.tasks._readers import Table, is_blank
from autopeft.tasks._task import CLASSIFICATION, REGRESSION

#: More distinct numbers than this are values to predict, not classes.
_MAX_NUMERIC_CLASSES = 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labels:
    """Encoded labels.

    Args:
        kind: ``"classification"`` or ``"regression"``.
        targets: Class indices (int64) or values (float64).
        names: Names of the classes by index; None for regression.
    """

    kind: str
    targets: npt.NDArray[Any]
    names: tuple[str, ...] | None


def encode_labels(table: Table, column: str, *, kind: str | None, keys: Sequence[str]) -> Labels:
    """Read a label column.

    Without ``kind``, labels are classes unless all are numbers and either more than 20 different ones, or more than 10
    of which some are not whole.

    Args:
        table: The file.
        column: Its label column.
        kind: ``"classification"``, ``"regression"``, or None to infer it.
        keys: What makes rows the same example; a class needs two different ones.

    Raises:
        TaskError: If labels are missing, of no use, or do not suit the kind.
    """
    values = table.column(column)
    blank = [row for row, value in enumerate(values) if is_blank(value) or str(value).strip().lower() == "nan"]
    if blank:
        raise TaskError(
            f"{table.path}: column {column!r} must have a label in every row, but {len(blank)} of {len(table)} have "
            f"none ({table.where(blank)}). Fill them in or delete the rows."
        )
    odd = [row for row, value in enumerate(values) if not isinstance(value, str | int | float)]
    if odd:
        raise TaskError(
            f"{table.path}: labels in {column!r} must be text, numbers or booleans, but {table.where(odd[:1])} holds a "
            f"{type(values[odd[0]]).__name__}."
        )
    numbers = [_to_number(value) for value in values]
    if (kind or _infer_kind(numbers)) == REGRESSION:
        return _encode_values(table, column, values, numbers)
    return _encode_classes(table, column, values, numbers, keys)


def _to_number(value: Any) -> float | None:
    if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _infer_kind(numbers: Sequence[float | None]) -> str:
    distinct = set(numbers)
    if None in distinct or len(distinct) <= 10:
        return CLASSIFICATION
    has_fractions = any(number is not None and not number.is_integer() for number in distinct)
    return REGRESSION if has_fractions or len(distinct) > _MAX_NUMERIC_CLASSES else CLASSIFICATION


def _encode_values(table: Table, column: str, values: Sequence[Any], numbers: Sequence[float | None]) -> Labels:
    bad = [row for row, number in enumerate(numbers) if number is None or not math.isfinite(number)]
    if bad:
        raise TaskError(
            f"{table.path}: regression needs a finite number in every row of {column!r}, but {table.where(bad[:1])} "
            f"holds {values[bad[0]]!r} ({len(bad)} such rows). Correct them, or pass --kind classification."
        )
    if len(set(numbers)) == 1:
        raise TaskError(f"{table.path}: every label in {column!r} is {values[0]!r}, so there is nothing to predict.")
    return Labels(kind=REGRESSION, targets=np.array(numbers, dtype=np.float64), names=None)


def _class_name(value: Any) -> str:
    # Parquet and JSON may hold whole numbers as 1.0; text is left as it is, for 007 need not be 7.
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _encode_classes(
    table: Table, column: str, values: Sequence[Any], numbers: Sequence[float | None], keys: Sequence[str]
) -> Labels:
    names_of_rows = [_class_name(value) for value in values]
    rows_of: dict[str, int] = Counter(names_of_rows)
    if len(rows_of) == 1:
        raise TaskError(
            f"{table.path}: every label in {column!r} is {names_of_rows[0]!r}, but a classification needs at least two "
            f"classes. Is it the right column? The file has {', '.join(table.names)}."
        )
    examples_of = Counter(name for name, _ in set(zip(names_of_rows, keys, strict=True)))
    rare = sorted(name for name, n_examples in examples_of.items() if n_examples < 2)
    if rare:
        row = names_of_rows.index(rare[0])
        listing = ", ".join(map(repr, rare[:5])) + (f" and {len(rare) - 5} more" if len(rare) > 5 else "")
        advice = " If the labels are values to predict, pass --kind regression." if None not in numbers else ""
        raise TaskError(
            f"{table.path}: every class in {column!r} needs at least two different examples, one to train on and one "
            f"to score, but {len(rare)} of {len(rows_of)} classes have one: {listing} ({table.where([row])}). Add "
            f"examples, merge classes, or delete the rows.{advice}"
        )
    order = sorted(rows_of, key=(lambda name: (float(name), name)) if None not in numbers else None)
    index = {name: number for number, name in enumerate(order)}
    targets = np.array([index[name] for name in names_of_rows], dtype=np.int64)
    return Labels(kind=CLASSIFICATION, targets=targets, names=tuple(order))
