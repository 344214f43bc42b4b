"""GLUE: official train files are carved into train and search, official dev files are the report split.

References:
    Wang et al., "GLUE: A Multi-Task Benchmark and Analysis Platform for Natural Language Understanding",
    arXiv:1804.07461.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autopeft.exceptions import TaskError
from autopeft.tasks._metrics import directions
from autopeft.tasks._splits import Examples, carve
from autopeft.tasks._task import CLASSIFICATION, REGRESSION, Task

HUB_ID = "nyu-mll/glue"
#: How the source of a task that came from the hub begins.
HUB_PREFIX = "hub:"


@dataclass(frozen=True, slots=True, kw_only=True)
class GlueTask:
    """One GLUE task as its official files have it.

    Args:
        description: What has to be told, in a few words.
        folder: Name of its folder in the official layout.
        texts: Text columns of the official files, one or two.
        label: Label column.
        labels: Class index of each label in the files; None for regression. Indices are those of the hub's version.
        label_names: Names of the classes by index; None for regression.
        metrics: Official metrics, the primary one first.
        hub_texts: Text columns of the hub's version.
        columns: Names of the columns where the files have no header.
        report_file: File of the report split.
        hub_report: Split of the hub's version that becomes the report split.
        skips_short_rows: Whether rows with missing fields are left out, because the official file has some.
    """

    description: str
    folder: str
    texts: tuple[str, ...]
    label: str
    labels: Mapping[str, int] | None
    label_names: tuple[str, ...] | None
    metrics: tuple[str, ...]
    hub_texts: tuple[str, ...]
    columns: tuple[str, ...] | None = None
    report_file: str = "dev.tsv"
    hub_report: str = "validation"
    skips_short_rows: bool = False

    @property
    def kind(self) -> str:
        return REGRESSION if self.label_names is None else CLASSIFICATION


_BINARY = {"0": 0, "1": 1}
_ENTAILMENT = {"entailment": 0, "not_entailment": 1}

#: Accuracy comes before F1 for MRPC and QQP: a constant answer already has an F1 of 0.81 on MRPC.
GLUE: dict[str, GlueTask] = {
    "cola": GlueTask(
        description="is the sentence grammatical English?",
        folder="CoLA",
        columns=("source", "label", "mark", "sentence"),
        texts=("sentence",),
        label="label",
        labels=_BINARY,
        label_names=("unacceptable", "acceptable"),
        metrics=("matthews", "accuracy"),
        hub_texts=("sentence",),
    ),
    "mnli": GlueTask(
        description="does the premise entail the hypothesis? (report split: matched dev)",
        folder="MNLI",
        texts=("sentence1", "sentence2"),
        label="gold_label",
        labels={"entailment": 0, "neutral": 1, "contradiction": 2},
        label_names=("entailment", "neutral", "contradiction"),
        metrics=("accuracy",),
        hub_texts=("premise", "hypothesis"),
        report_file="dev_matched.tsv",
        hub_report="validation_matched",
    ),
    "mrpc": GlueTask(
        description="do two sentences from the news mean the same?",
        folder="MRPC",
        texts=("#1 String", "#2 String"),
        label="Quality",
        labels=_BINARY,
        label_names=("not_equivalent", "equivalent"),
        metrics=("accuracy", "f1"),
        hub_texts=("sentence1", "sentence2"),
    ),
    "qnli": GlueTask(
        description="does the sentence answer the question?",
        folder="QNLI",
        texts=("question", "sentence"),
        label="label",
        labels=_ENTAILMENT,
        label_names=("entailment", "not_entailment"),
        metrics=("accuracy",),
        hub_texts=("question", "sentence"),
    ),
    "qqp": GlueTask(
        description="do two questions ask the same?",
        folder="QQP",
        texts=("question1", "question2"),
        label="is_duplicate",
        labels=_BINARY,
        label_names=("not_duplicate", "duplicate"),
        metrics=("accuracy", "f1"),
        hub_texts=("question1", "question2"),
        skips_short_rows=True,
    ),
    "rte": GlueTask(
        description="does the text entail the hypothesis?",
        folder="RTE",
        texts=("sentence1", "sentence2"),
        label="label",
        labels=_ENTAILMENT,
        label_names=("entailment", "not_entailment"),
        metrics=("accuracy",),
        hub_texts=("sentence1", "sentence2"),
    ),
    "sst2": GlueTask(
        description="is the film review positive?",
        folder="SST-2",
        texts=("sentence",),
        label="label",
        labels=_BINARY,
        label_names=("negative", "positive"),
        metrics=("accuracy",),
        hub_texts=("sentence",),
    ),
    "stsb": GlueTask(
        description="how similar are two sentences, from 0 to 5?",
        folder="STS-B",
        texts=("sentence1", "sentence2"),
        label="score",
        labels=None,
        label_names=None,
        metrics=("pearson", "spearman"),
        hub_texts=("sentence1", "sentence2"),
    ),
    "wnli": GlueTask(
        description="does the sentence with the pronoun replaced follow?",
        folder="WNLI",
        texts=("sentence1", "sentence2"),
        label="label",
        labels=_BINARY,
        label_names=("not_entailment", "entailment"),
        metrics=("accuracy",),
        hub_texts=("sentence1", "sentence2"),
    ),
}


def load_glue(
    key: str,
    *,
    data_dir: Path | None,
    train_fraction: float,
    search_fraction: float,
    max_search_examples: int,
    seed: int,
) -> Task:
    """Load a GLUE task.

    The search split is carved from the official train file first, and does not depend on ``train_fraction``; then
    ``train_fraction`` of the official number of rows is taken from what remains, so that smaller fractions are parts of
    larger ones. Rows whose text stands in the report split, or in the search split, are left out of training.

    Args:
        key: Key of `GLUE`.
        data_dir: Folder with the official layout; None loads from the hub.
        train_fraction: Share of the official train rows used, in (0, 1].
        search_fraction: Share of the official train rows carved for the search split, in (0, 0.5].
        max_search_examples: Cap on the search split.
        seed: Seed of the splits.

    Raises:
        TaskError: If the files or the hub cannot be used; the message says what was looked for.
    """
    task = GLUE[key]
    if data_dir is None:
        train, report, source = *_read_hub(key, task), f"{HUB_PREFIX}{HUB_ID}/{key}"
    else:
        folder = _find_folder(key, task, data_dir)
        train, report = (_read_official(folder / name, task) for name in ("train.tsv", task.report_file))
        source = str(folder.absolute())
    n_search = max(1, min(round(search_fraction * len(train)), max_search_examples))
    (search_rows,), rest = carve(train, [n_search], seed=seed, exclude=report.keys())
    n_train = max(1, round(train_fraction * len(train)))
    return Task(
        name=f"glue/{key}",
        source=source,
        description=task.description,
        kind=task.kind,
        label_names=task.label_names,
        metrics=directions(task.metrics),
        train=train.take(rest[:n_train]),
        search=train.take(search_rows),
        report=report.take(range(len(report))),
        options={
            "train_fraction": train_fraction,
            "search_fraction": search_fraction,
            "max_search_examples": max_search_examples,
            "split_seed": seed,
        },
    )


def _find_folder(key: str, task: GlueTask, data_dir: Path) -> Path:
    wanted = [f"{task.folder}/{name}" for name in ("train.tsv", task.report_file)]
    rule = f"--data-dir must name the folder that holds {' and '.join(wanted)}"
    if not data_dir.is_dir():
        state = "is a file" if data_dir.exists() else "does not exist"
        raise TaskError(f"glue/{key}: {rule}, but {data_dir} {state}.")
    missing = [name for name in wanted if not (data_dir / name).is_file()]
    if missing:
        entries = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in data_dir.iterdir())
        holds = ", ".join(entries[:12]) + (", ..." if len(entries) > 12 else "") if entries else "nothing"
        advice = ""
        if data_dir.name == task.folder and (data_dir / "train.tsv").is_file():
            advice = f" Pass its parent: --data-dir {data_dir.parent}"
        raise TaskError(
            f"glue/{key}: {rule}, but {data_dir} has no {' and no '.join(missing)}; it has {holds}.{advice}"
        )
    return data_dir / task.folder


def _read_official(path: Path, task: GlueTask) -> Examples:
    """Read an official file: tab-separated, quotes are literal, the first line is the header (but for CoLA)."""
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TaskError(f"{path} is not UTF-8: byte {error.start} cannot be read. Download it again.") from None
    # Only line feeds end a row: str.splitlines would also break at characters that stand inside sentences.
    lines = content.replace("\r\n", "\n").removesuffix("\n").split("\n")
    header = task.columns or tuple(lines.pop(0).split("\t"))
    first_line = 1 if task.columns else 2
    absent = [name for name in (*task.texts, task.label) if name not in header]
    if absent:
        raise TaskError(
            f"{path} has no column {' and no column '.join(map(repr, absent))}; its first line names "
            f"{', '.join(map(repr, header))}. Is it the file of the official layout?"
        )
    columns = [header.index(name) for name in (*task.texts, task.label)]
    rows = []
    for number, line in enumerate(lines, start=first_line):
        fields = line.split("\t")
        if len(fields) > max(columns):
            rows.append([fields[column] for column in columns])
        elif not task.skips_short_rows:
            raise TaskError(f"{path}, line {number}: expected {len(header)} fields, but found {len(fields)}.")
    if not rows:
        raise TaskError(f"{path} holds no examples.")
    return _to_examples(task, [row[:-1] for row in rows], [row[-1] for row in rows], f"{path}, from line {first_line}")


def _to_examples(task: GlueTask, texts: Sequence[Sequence[str]], labels: Sequence[str], where: str) -> Examples:
    targets: Any
    try:
        if task.labels is None:
            targets = np.array([float(label) for label in labels], dtype=np.float64)
        else:
            targets = np.array([task.labels[label.strip()] for label in labels], dtype=np.int64)
    except (KeyError, ValueError) as error:
        allowed = "a number" if task.labels is None else f"one of {', '.join(task.labels)}"
        raise TaskError(f"{where}: every {task.label} must be {allowed}, but one is not: {error}.") from None
    return Examples(
        texts=[row[0] for row in texts],
        pairs=[row[1] for row in texts] if len(task.texts) == 2 else None,
        targets=targets,
    )


def _read_hub(key: str, task: GlueTask) -> tuple[Examples, Examples]:
    import datasets

    try:
        # Of no revision: a study keeps the content's hash, and a search that goes on with other data is refused.
        names = ("train", task.hub_report)
        splits = [datasets.load_dataset(HUB_ID, key, split=name) for name in names]  # nosec B615
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TaskError(
            f"glue/{key} could not be loaded from the hub ({HUB_ID}): {reason.rstrip('.')}. Without a network, "
            f"pass --data-dir (or set AUTOPEFT_DATA_DIR) with the folder that holds {task.folder}/train.tsv and "
            f"{task.folder}/{task.report_file} in the official GLUE layout."
        ) from error
    train, report = (_from_hub(task, split) for split in splits)
    return train, report


def _from_hub(task: GlueTask, split: Any) -> Examples:
    dtype = np.float64 if task.labels is None else np.int64
    columns = [list(split[name]) for name in task.hub_texts]
    return Examples(
        texts=columns[0],
        pairs=columns[1] if len(columns) == 2 else None,
        targets=np.asarray(split["label"], dtype=dtype),
    )
