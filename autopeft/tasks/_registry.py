"""TASKS: every task that has a name, and `load_task` for these and for the user's own files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autopeft.exceptions import TaskError, UnknownNameError
from autopeft.objectives import Direction
from autopeft.tasks._files import load_file
from autopeft.tasks._glue import GLUE, HUB_ID, HUB_PREFIX, load_glue
from autopeft.tasks._metrics import directions
from autopeft.tasks._readers import READERS
from autopeft.tasks._stdlib import METRICS as STDLIB_METRICS
from autopeft.tasks._stdlib import load_topics
from autopeft.tasks._task import CLASSIFICATION, KINDS, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDescription:
    """A task as `autopeft tasks` lists it.

    Args:
        name: What ``--task`` takes.
        description: One sentence.
        kind: ``"classification"`` or ``"regression"``.
        metrics: Metrics and their directions, the primary one first.
        origin: Where the data come from.
        needs_network: Whether it needs a network where no ``--data-dir`` is given.
    """

    name: str
    description: str
    kind: str
    metrics: Mapping[str, Direction]
    origin: str
    needs_network: bool


def _describe_glue(key: str) -> TaskDescription:
    task = GLUE[key]
    return TaskDescription(
        name=f"glue/{key}",
        description=task.description,
        kind=task.kind,
        metrics=directions(task.metrics),
        origin=f"{task.folder}/train.tsv and {task.folder}/{task.report_file} in --data-dir, else the hub ({HUB_ID})",
        needs_network=True,
    )


#: What every registered task is; `load_task` loads it.
TASKS: dict[str, TaskDescription] = {
    "stdlib/topics": TaskDescription(
        name="stdlib/topics",
        description="which part of the standard library does this docstring belong to?",
        kind=CLASSIFICATION,
        metrics=directions(STDLIB_METRICS),
        origin="the sources of the running Python's standard library",
        needs_network=False,
    ),
    **{f"glue/{key}": _describe_glue(key) for key in GLUE},
}


def list_tasks() -> tuple[TaskDescription, ...]:
    """Every registered task, by name."""
    return tuple(TASKS[name] for name in sorted(TASKS))


_HIGHEST_FRACTIONS = {"train_fraction": 1.0, "search_fraction": 0.5, "report_fraction": 0.4}
_LOWEST_COUNTS = {"max_search_examples": 1, "max_report_examples": 1, "seed": 0}


def _check_fractions(**fractions: float) -> None:
    for name, value in fractions.items():
        if not 0 < value <= _HIGHEST_FRACTIONS[name]:
            raise TaskError(f"{name} must lie in (0, {_HIGHEST_FRACTIONS[name]:g}], but got {value:g}.")


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if value < _LOWEST_COUNTS[name]:
            raise TaskError(f"{name} must be at least {_LOWEST_COUNTS[name]}, but got {value}.")


def _check_kind(name: str, kind: str | None, *, has_columns: bool) -> None:
    if kind is not None and kind not in KINDS:
        raise UnknownNameError("kind", kind, KINDS)
    if name in TASKS and (has_columns or kind):
        raise TaskError(f"{name} has its own columns and kind; --text-column, --label-column and --kind are for files.")


def load_task(
    name: str,
    *,
    data_dir: Path | None = None,
    text_columns: Sequence[str] | None = None,
    label_column: str | None = None,
    kind: str | None = None,
    train_fraction: float = 1.0,
    search_fraction: float = 0.2,
    report_fraction: float = 0.2,
    max_search_examples: int = 1000,
    max_report_examples: int = 2000,
    seed: int = 0,
) -> Task:
    """Load a task by name, or make one of the user's file.

    Args:
        name: Key of `TASKS`, or the path of a CSV, TSV, JSON-lines or Parquet file.
        data_dir: Folder with GLUE's official layout; None loads GLUE from the hub. Other tasks ignore it.
        text_columns: One or two text columns of the file; None or empty looks for the usual names.
        label_column: Label column of the file; None looks for the usual names.
        kind: ``"classification"`` or ``"regression"``, for files only; None infers it from the labels.
        train_fraction: Share of the training data used, in (0, 1]: of the official train file for GLUE, of the
            training split otherwise.
        search_fraction: Share of the training data carved for the search split, in (0, 0.5].
        report_fraction: Share of a file's rows carved for the report split, in (0, 0.4].
        max_search_examples: Cap on the search split, >= 1.
        max_report_examples: Cap on a file's report split, >= 1.
        seed: Seed of the splits, >= 0.

    Raises:
        UnknownNameError: If the name is neither registered nor an existing file.
        TaskError: If the data cannot be used.
    """
    _check_fractions(train_fraction=train_fraction, search_fraction=search_fraction, report_fraction=report_fraction)
    _check_counts(max_search_examples=max_search_examples, max_report_examples=max_report_examples, seed=seed)
    _check_kind(name, kind, has_columns=bool(text_columns or label_column))
    if name == "stdlib/topics":
        return load_topics(train_fraction=train_fraction, seed=seed)
    folder = None if data_dir is None else Path(data_dir)
    shares = {"train_fraction": train_fraction, "search_fraction": search_fraction}
    if name in TASKS:
        short = name.removeprefix("glue/")
        return load_glue(short, data_dir=folder, max_search_examples=max_search_examples, seed=seed, **shares)
    path = Path(name).expanduser()
    if path.suffix.lower() in READERS or (name and path.exists()):
        return load_file(
            path,
            text_columns=text_columns,
            label_column=label_column,
            kind=kind,
            report_fraction=report_fraction,
            max_search_examples=max_search_examples,
            max_report_examples=max_report_examples,
            seed=seed,
            **shares,
        )
    raise UnknownNameError(
        "task", name, TASKS, f"A file of your own is named by its path; it must exist and end in {', '.join(READERS)}."
    )


def reload_task(settings: Mapping[str, Any]) -> Task:
    """Load the task of a study again.

    Args:
        settings: What `Task.settings` gave.

    Raises:
        TaskError: If its data cannot be found any more, or have changed since.
    """
    name, source = str(settings["name"]), str(settings["source"])
    options = {
        key: settings[key]
        for key in (
            "text_columns",
            "label_column",
            "train_fraction",
            "search_fraction",
            "report_fraction",
            "max_search_examples",
            "max_report_examples",
        )
        if key in settings
    }
    if name not in TASKS:
        task = load_task(source, kind=settings["kind"], seed=settings["split_seed"], **options)
    else:
        data_dir = Path(source).parent if name.startswith("glue/") and not source.startswith(HUB_PREFIX) else None
        task = load_task(name, data_dir=data_dir, seed=settings["split_seed"], **options)
    if task.content_hash != settings["content_hash"]:
        raise TaskError(
            f"the data of {name} ({source}) are not those of the study any more: their content hash is "
            f"{task.content_hash[:12]}, the study's is {settings['content_hash'][:12]}. Restore the data, or start "
            f"a new study."
        )
    return task
