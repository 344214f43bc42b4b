"""Oracles: the dataclasses' own rules, and content hashes that must differ where anything differs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from autopeft.study import Fidelity
from autopeft.tasks import REGRESSION, Split, Task
from autopeft.tasks._metrics import directions


def make_split(prefix: str, n: int = 4) -> Split:
    return Split(texts=tuple(f"{prefix} {row}" for row in range(n)), pairs=None, targets=np.arange(n) % 2)


def make_task(**changes: Any) -> Task:
    given: dict[str, Any] = {
        "name": "toy",
        "source": "here",
        "description": "toy",
        "kind": "classification",
        "label_names": ("no", "yes"),
        "metrics": directions(("accuracy", "f1")),
        "train": make_split("train"),
        "search": make_split("search"),
        "report": make_split("report"),
    }
    return Task(**{**given, **changes})


def test_split_checks_its_lengths_and_types() -> None:
    with pytest.raises(ValueError, match="equally long"):
        Split(texts=("a",), pairs=None, targets=np.array([0, 1]))
    with pytest.raises(ValueError, match="equally long"):
        Split(texts=("a",), pairs=("b", "c"), targets=np.array([0]))
    with pytest.raises(ValueError, match="int64 or float64"):
        Split(texts=("a",), pairs=None, targets=np.array(["x"]))


def test_split_is_read_only() -> None:
    split = make_split("a")
    with pytest.raises(ValueError, match="read-only"):
        split.targets[0] = 1
    assert split.head(2).texts == ("a 0", "a 1")
    assert len(split.head(99)) == 4


def test_task_checks_its_fields() -> None:
    with pytest.raises(ValueError, match="kind must be"):
        make_task(kind="ranking")
    with pytest.raises(ValueError, match="label_names"):
        make_task(label_names=None)
    with pytest.raises(ValueError, match="'search' must not be empty"):
        make_task(search=make_split("x", 0))
    with pytest.raises(ValueError, match="must suit"):
        make_task(kind=REGRESSION, label_names=None)


def test_hash_depends_on_the_content_and_on_nothing_else() -> None:
    base = make_task()
    assert base.content_hash == make_task(name="other", source="elsewhere", description="x").content_hash
    changed = [
        make_task(train=make_split("other")),
        make_task(report=make_split("other")),
        make_task(train=base.search, search=base.train),
        make_task(label_names=("yes", "no")),
        make_task(metrics=directions(("accuracy",))),
        make_task(metrics=directions(("f1", "accuracy"))),
        make_task(train=replace(base.train, pairs=base.train.texts)),
        make_task(train=replace(base.train, pairs=base.train.texts[::-1])),
        make_task(train=replace(base.train, targets=1 - base.train.targets)),
        # The same characters, cut elsewhere.
        make_task(train=replace(base.train, texts=("train 0train 1", "", "train 2", "train 3"))),
    ]
    hashes = {task.content_hash for task in (base, *changed)}
    assert len(hashes) == len(changed) + 1


def test_settings_are_json_and_name_everything() -> None:
    task = make_task(options={"split_seed": 3})
    settings = json.loads(json.dumps(task.settings()))
    assert settings == task.settings()
    assert settings["n_examples"] == {"train": 4, "search": 4, "report": 4}
    assert settings["split_seed"] == 3
    assert settings["content_hash"] == task.content_hash
    assert task.primary_metric == "accuracy"
    assert task.n_labels == 2


def test_evaluate_checks_and_leaves_out_what_is_undefined() -> None:
    task = make_task()
    assert task.evaluate([0, 1, 0, 1], task.report.targets) == {"accuracy": 1.0, "f1": 1.0}
    assert task.evaluate([0, 0], [0, 0]) == {"accuracy": 1.0}
    with pytest.raises(ValueError, match="equally long"):
        task.evaluate([0], [0, 1])
    with pytest.raises(ValueError, match="not empty"):
        task.evaluate([], [])


def test_evaluate_refuses_values_that_are_not_finite() -> None:
    split = Split(texts=("a", "b"), pairs=None, targets=np.array([0.0, 1.0]))
    task = make_task(
        kind=REGRESSION, label_names=None, metrics=directions(("pearson",)), train=split, search=split, report=split
    )
    assert task.n_labels == 1
    assert task.evaluate([1.0, 1.0], [0.0, 1.0]) == {}
    with pytest.raises(ValueError, match="1 are not"):
        task.evaluate([np.nan, 1.0], [0.0, 1.0])


@pytest.mark.parametrize(
    ("n", "n_words", "expected"),
    [
        (10, 5, (10, 10)),
        (500, 5, (500, 8)),
        # SST-2 at 2 %: 3 + 1.3 * 9 = 14.7 tokens: 45000 / (1347 * 14.7) = 2.3 epochs.
        (1347, 9, (1347, 2)),
        (700, 9, (700, 4)),
        (5000, 9, (1350, 2)),
        # 3 + 1.3 * 13 = 19.9 tokens: 45000 / (2 * 19.9) = 1130 examples.
        (5000, 13, (1130, 2)),
        (5000, 200, (1000, 2)),
        (300, 200, (300, 2)),
    ],
)
def test_default_fidelity_bounds_examples_and_tokens(n: int, n_words: int, expected: tuple[int, int]) -> None:
    texts = tuple("word " * n_words for _ in range(n))
    task = make_task(train=Split(texts=texts, pairs=None, targets=np.arange(n) % 2))
    assert task.default_fidelity() == Fidelity(train_examples=expected[0], epochs=expected[1])
    halves = Split(texts=tuple(text[: len(text) // 2] for text in texts), pairs=texts, targets=np.arange(n) % 2)
    assert make_task(train=halves).default_fidelity().train_examples <= expected[0]
