"""Oracles: files written here; splits checked against their definition."""

from __future__ import annotations

import csv
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from autopeft.exceptions import TaskError
from autopeft.tasks import load_task


def write_csv(path: Path, rows: Sequence[Sequence[Any]], header: Sequence[str] = ("text", "label")) -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def reviews(n: int = 100) -> list[tuple[str, str]]:
    return [(f"review number {row}", ("bad", "fine", "good")[row % 3 if row % 2 else 0]) for row in range(n)]


def test_classification(tmp_path: Path) -> None:
    task = load_task(write_csv(tmp_path / "reviews.csv", reviews()))
    assert (task.name, task.kind, task.label_names) == ("reviews.csv", "classification", ("bad", "fine", "good"))
    assert list(task.metrics) == ["accuracy", "macro_f1"]
    assert task.source == str(tmp_path / "reviews.csv")
    assert (len(task.train), len(task.search), len(task.report)) == (64, 16, 20)
    truth = dict(reviews())
    for split in task.splits.values():
        assert [task.label_names[index] for index in split.targets] == [truth[text] for text in split.texts]
    assert sorted(text for split in task.splits.values() for text in split.texts) == sorted(truth)
    shares = Counter(truth.values())
    for split in task.splits.values():
        for index, name in enumerate(task.label_names):
            assert abs(int((split.targets == index).sum()) - len(split) * shares[name] / 100) < 4


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_task(suffix: str, tmp_path: Path) -> None:
    reference = load_task(write_csv(tmp_path / "reference.csv", reviews()))
    frame, path = pd.DataFrame(reviews(), columns=["text", "label"]), tmp_path / f"reviews{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(path)
    elif suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False, sep="," if suffix == ".csv" else "\t")
    assert load_task(str(path)).content_hash == reference.content_hash


def test_pairs_and_values(tmp_path: Path) -> None:
    rows = [(f"left {row}", f"right {row}", f"{row / 7:.3f}", "x") for row in range(60)]
    path = write_csv(tmp_path / "pairs.csv", rows, ("a", "b", "similarity", "noise"))
    task = load_task(path, text_columns=("a", "b"), label_column="similarity")
    assert (task.kind, task.n_labels, task.label_names) == ("regression", 1, None)
    assert list(task.metrics) == ["pearson", "spearman", "rmse"]
    truth = {row[:2]: float(row[2]) for row in rows}
    for split in task.splits.values():
        assert split.pairs is not None
        assert [truth[pair] for pair in zip(split.texts, split.pairs, strict=True)] == split.targets.tolist()
    # Stratified by quantile: the means agree far better than at random.
    means = [float(np.mean(split.targets)) for split in task.splits.values()]
    assert max(means) - min(means) < 1.0
    perfect = task.evaluate(task.report.targets, task.report.targets)
    assert perfect == pytest.approx({"pearson": 1.0, "spearman": 1.0, "rmse": 0.0})


def test_kind_can_be_chosen(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "stars.csv", [(f"text {row}", row % 5) for row in range(50)])
    assert load_task(path).kind == "classification"
    assert load_task(path, kind="regression").kind == "regression"


def test_identical_texts_stay_in_one_split(tmp_path: Path) -> None:
    rows = [(f"text {row % 40}" + " " * (row // 40), "ab"[row % 2]) for row in range(160)]
    task = load_task(write_csv(tmp_path / "twice.csv", rows))
    keys = {name: {text.strip() for text in split.texts} for name, split in task.splits.items()}
    assert sum(map(len, keys.values())) == len(set().union(*keys.values())) == 40
    assert len(task.train) == 4 * len(keys["train"])
    assert len(task.report) == len(keys["report"]) == 8


def test_splits_are_seeded_sized_and_nested(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "reviews.csv", reviews(300))
    base, again, other = (load_task(path, seed=seed) for seed in (0, 0, 1))
    assert base.content_hash == again.content_hash != other.content_hash
    half = load_task(path, train_fraction=0.5)
    assert half.train.texts == base.train.texts[: round(0.5 * len(base.train))]
    assert half.report.texts == base.report.texts
    small = load_task(path, max_search_examples=5, max_report_examples=7)
    assert (len(small.search), len(small.report)) == (5, 7)
    assert len(load_task(path, report_fraction=0.4).report) == 120


def test_a_rare_class_can_be_learned(tmp_path: Path) -> None:
    rows = [*reviews(60), ("rare one", "rare"), ("rare two", "rare")]
    for seed in range(8):
        task = load_task(write_csv(tmp_path / "rare.csv", rows), seed=seed)
        assert set(task.train.targets) == set(range(4))


def test_usual_columns_are_found(tmp_path: Path) -> None:
    rows = [(row, f"one {row}", f"two {row}", "ab"[row % 2]) for row in range(20)]
    task = load_task(write_csv(tmp_path / "a.csv", rows, ("id", "sentence1", "sentence2", "label")))
    assert task.options["text_columns"] == ["sentence1", "sentence2"]
    assert task.options["label_column"] == "label"
    task = load_task(write_csv(tmp_path / "b.csv", rows, ("id", "other", "text", "target")))
    assert (task.options["text_columns"], task.options["label_column"]) == (["text"], "target")


@pytest.mark.parametrize(
    ("header", "arguments", "message"),
    [
        (("text", "label"), {"text_columns": ["txt"]}, r"no column 'txt'\. Did you mean 'text'\? The file has 'text'"),
        (("text", "label"), {"text_columns": ["Text"]}, r"no column 'Text'\. Did you mean 'text'\?"),
        (("Text", "label"), {"text_columns": ["text"]}, r"no column 'text'\. Did you mean 'Text'\?"),
        (("text", "label"), {"label_column": "zzz"}, r"no column 'zzz'\. The file has"),
        (("body", "label"), {}, r"no text column found; name one with --text-column\. The file has 'body', 'label'"),
        (("text", "y"), {}, r"no label column found; name one with --label-column"),
        (("text", "label"), {"label_column": "text"}, r"text and label columns must differ"),
        (("text", "label"), {"text_columns": ["text", "text"]}, r"must differ"),
        (("text", "label"), {"text_columns": ["a", "b", "c"]}, r"one or two text columns.*a, b, c"),
        (("text", "text"), {"label_column": "text"}, r"has 2 columns called 'text'"),
    ],
)  # fmt: skip
def test_wrong_columns(header: tuple[str, ...], arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=message):
        load_task(write_csv(tmp_path / "a.csv", reviews(), header), **arguments)


def test_blank_labels_and_texts_are_counted_and_located(tmp_path: Path) -> None:
    rows = [[*row] for row in reviews(30)]
    rows[4][1] = rows[9][1] = ""
    with pytest.raises(TaskError, match=r"2 of 30 have none \(lines 6, 11\)"):
        load_task(write_csv(tmp_path / "a.csv", rows))
    rows = [[*row] for row in reviews(30)]
    rows[7][0] = " "
    with pytest.raises(TaskError, match=r"'text' must have text in every row, but 1 of 30 are empty \(line 9\)"):
        load_task(write_csv(tmp_path / "a.csv", rows))
    frame = pd.DataFrame(reviews(30), columns=["text", "label"])
    frame.loc[3, "label"] = None
    frame.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(TaskError, match=r"1 of 30 have none \(row 4\)"):
        load_task(str(tmp_path / "a.parquet"))


def test_texts_must_be_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": row, "label": "ab"[row % 2]}) + "\n" for row in range(20)))
    with pytest.raises(TaskError, match=r"'text' must hold text, but line 1 holds int '0'"):
        load_task(str(path))
    path.write_text("".join(json.dumps({"text": f"{row} \ud800", "label": "ab"[row % 2]}) + "\n" for row in range(20)))
    with pytest.raises(TaskError, match=r"must hold valid Unicode, but lines 1, 2"):
        load_task(str(path))


def test_too_few_examples(tmp_path: Path) -> None:
    rows = [(f"text {row % 9}", "ab"[row % 9 % 2]) for row in range(18)]
    with pytest.raises(TaskError, match=r"at least 10 different examples.*but it holds 9"):
        load_task(write_csv(tmp_path / "a.csv", rows))


def test_smallest_files_still_have_three_splits(tmp_path: Path) -> None:
    for values in (["a", "b"] * 5, [f"{row}.5" for row in range(10)]):
        kind = "classification" if "a" in values else "regression"
        path = write_csv(tmp_path / "a.csv", [(f"text {row}", value) for row, value in enumerate(values)])
        task = load_task(path, kind=kind)
        assert min(len(split) for split in task.splits.values()) >= 1


def test_a_text_of_100_000_words_is_fast(tmp_path: Path) -> None:
    rows = [(f"{row} " + "word " * 100_000, "ab"[row % 2]) for row in range(20)]
    path = write_csv(tmp_path / "long.csv", rows)
    start = time.process_time()
    task = load_task(path)
    assert time.process_time() - start < 5, "2 million words took 0.5 s on an idle core"
    assert max(len(text.split()) for text in task.train.texts) == 100_001
