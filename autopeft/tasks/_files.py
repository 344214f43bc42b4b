"""Tasks made of the user's own file."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autopeft.exceptions import TaskError
from autopeft.tasks._labels import encode_labels
from autopeft.tasks._metrics import directions
from autopeft.tasks._readers import Table, is_blank, read_table
from autopeft.tasks._splits import Examples, carve, normalize
from autopeft.tasks._task import Task

#: Columns looked for where none are named, most specific first.
_TEXT_COLUMNS: tuple[tuple[str, ...], ...] = (
    ("sentence1", "sentence2"),
    ("text1", "text2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text",),
    ("sentence",),
    ("review",),
    ("content",),
)
_LABEL_COLUMNS = ("label", "labels", "target", "class", "category", "score", "rating")

_METRICS = {"classification": ("accuracy", "macro_f1"), "regression": ("pearson", "spearman", "rmse")}
_MIN_EXAMPLES = 10


def load_file(
    path: Path,
    *,
    text_columns: Sequence[str] | None,
    label_column: str | None,
    kind: str | None,
    train_fraction: float,
    search_fraction: float,
    report_fraction: float,
    max_search_examples: int,
    max_report_examples: int,
    seed: int,
) -> Task:
    """Make a task of a file. Arguments as in `load_task`.

    Raises:
        TaskError: If the file cannot be used; the message names the file, the rule, what was found and the way out.
    """
    table = read_table(path)
    text_names, label_name = _choose_columns(table, text_columns or (), label_column)
    texts = [_read_texts(table, name) for name in text_names]
    keys = ["\t".join(map(normalize, row)) for row in zip(*texts, strict=True)]
    labels = encode_labels(table, label_name, kind=kind, keys=keys)
    n_distinct = len(set(keys))
    if n_distinct < _MIN_EXAMPLES:
        raise TaskError(
            f"{path} must hold at least {_MIN_EXAMPLES} different examples, to be split into train, search and report, "
            f"but it holds {n_distinct}."
        )
    examples = Examples(texts=texts[0], pairs=texts[1] if len(texts) == 2 else None, targets=labels.targets)
    n_report = max(1, min(round(report_fraction * n_distinct), max_report_examples))
    n_search = max(1, min(round(search_fraction * (n_distinct - n_report)), max_search_examples))
    (report, search), train = carve(examples, [n_report, n_search], seed=seed)
    columns = " and ".join(map(repr, text_names))
    goal = f"{len(labels.names)} classes" if labels.names is not None else "a value"
    return Task(
        name=path.name,
        source=str(path.absolute()),
        description=f"{goal} ({label_name!r}) from {columns}",
        kind=labels.kind,
        label_names=labels.names,
        metrics=directions(_METRICS[labels.kind]),
        train=examples.take(train[: max(1, round(train_fraction * len(train)))]),
        search=examples.take(search),
        report=examples.take(report),
        options={
            "text_columns": list(text_names),
            "label_column": label_name,
            "train_fraction": train_fraction,
            "search_fraction": search_fraction,
            "report_fraction": report_fraction,
            "max_search_examples": max_search_examples,
            "max_report_examples": max_report_examples,
            "split_seed": seed,
        },
    )


def _choose_columns(table: Table, text_columns: Sequence[str], label_column: str | None) -> tuple[tuple[str, ...], str]:
    """Check the columns named, or find the usual ones."""
    listing = f"The file has {', '.join(map(repr, table.names))}."
    if len(text_columns) > 2:
        raise TaskError(f"{table.path}: one or two text columns can be used, but got {', '.join(text_columns)}.")
    texts = tuple(text_columns)
    if not texts:
        usual = next((names for names in _TEXT_COLUMNS if set(names) <= set(table.names)), None)
        if usual is None:
            raise TaskError(f"{table.path}: no text column found; name one with --text-column. {listing}")
        texts = usual
    label = label_column
    if label is None:
        label = next((name for name in _LABEL_COLUMNS if name in table.names and name not in texts), None)
        if label is None:
            raise TaskError(f"{table.path}: no label column found; name one with --label-column. {listing}")
    for name in (*texts, label):
        if name not in table.names:
            near = difflib.get_close_matches(name.lower(), [item.lower() for item in table.names], n=1, cutoff=0.5)
            named = next((item for item in table.names if near and item.lower() == near[0]), None)
            raise TaskError(
                f"{table.path} has no column {name!r}.{f' Did you mean {named!r}?' if named else ''} {listing}"
            )
        if table.names.count(name) > 1:
            raise TaskError(f"{table.path} has {table.names.count(name)} columns called {name!r}; rename all but one.")
    if len({*texts, label}) != len(texts) + 1:
        raise TaskError(
            f"{table.path}: text and label columns must differ, but got --text-column {', '.join(texts)} and "
            f"--label-column {label}."
        )
    return texts, label


def _read_texts(table: Table, name: str) -> list[str]:
    values: list[Any] = table.column(name)
    blank = [row for row, value in enumerate(values) if is_blank(value)]
    if blank:
        raise TaskError(
            f"{table.path}: column {name!r} must have text in every row, but {len(blank)} of {len(table)} are empty "
            f"({table.where(blank)}). Fill them in or delete the rows."
        )
    odd = [row for row, value in enumerate(values) if not isinstance(value, str)]
    if odd:
        raise TaskError(
            f"{table.path}: column {name!r} must hold text, but {table.where(odd[:1])} holds "
            f"{type(values[odd[0]]).__name__} {str(values[odd[0]])[:40]!r}. Is it the right column?"
        )
    broken = [row for row, value in enumerate(values) if not _is_unicode(value)]
    if broken:
        raise TaskError(
            f"{table.path}: column {name!r} must hold valid Unicode, but {table.where(broken)} holds half a surrogate "
            f"pair. Write characters beyond U+FFFF directly, or as both halves."
        )
    return values


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
