"""A task: data in three disjoint splits, and how predictions are scored."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from autopeft.objectives import Direction
from autopeft.study import Fidelity
from autopeft.tasks._metrics import compute_metrics

CLASSIFICATION = "classification"
REGRESSION = "regression"
KINDS = (CLASSIFICATION, REGRESSION)

#: What `Task.default_fidelity` aims at.
_DEFAULT_TOKENS, _DEFAULT_EXAMPLES = 45_000, 4000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Examples of one split.

    Args:
        texts: First text of each example.
        pairs: Second text of each example; None for tasks on single texts.
        targets: Class indices (int64) or values to predict (float64), one per example. Made read-only.
    """

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    targets: npt.NDArray[Any]

    def __post_init__(self) -> None:
        if self.targets.dtype not in (np.int64, np.float64):
            raise ValueError(f"targets must be int64 or float64, but got {self.targets.dtype}.")
        lengths = {len(self.texts), len(self.targets), len(self.texts if self.pairs is None else self.pairs)}
        if lengths != {len(self.texts)} or self.targets.ndim != 1:
            raise ValueError(f"texts, pairs and targets must be equally long, but their lengths are {lengths}.")
        self.targets.setflags(write=False)

    def __len__(self) -> int:
        return len(self.texts)

    def head(self, n: int) -> Split:
        """The first ``n`` examples (all of them if there are fewer)."""
        return Split(
            texts=self.texts[:n],
            pairs=None if self.pairs is None else self.pairs[:n],
            targets=self.targets[:n].copy(),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """Data, splits and metrics.

    Args:
        name: Registered name, or the name of the user's file.
        source: Where the data come from: an absolute path, a hub id, or a sentence.
        description: One sentence for people.
        kind: ``"classification"`` or ``"regression"``.
        label_names: Names of the classes by index; None for regression.
        metrics: Metrics and their directions; the first one is the primary metric.
        train: What candidates are trained on. Every prefix of it is as balanced as the whole (see `stratified_order`).
        search: What the optimizer sees; disjoint from `train`.
        report: Scored once per confirmed configuration; disjoint from both.
        options: What else defines the task, JSON-ready: columns, fractions, seed of the splits.
        content_hash: SHA-256 over kind, classes, metrics and the three splits (computed).
    """

    name: str
    source: str
    description: str
    kind: str
    label_names: tuple[str, ...] | None
    metrics: Mapping[str, Direction]
    train: Split
    search: Split
    report: Split
    options: Mapping[str, Any] = field(default_factory=dict)
    content_hash: str = field(init=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, but got {self.kind!r}.")
        if (self.label_names is None) != (self.kind == REGRESSION):
            raise ValueError("label_names must be given for classification, and only for it.")
        for name, split in self.splits.items():
            if not len(split):
                raise ValueError(f"split {name!r} must not be empty.")
            if (split.targets.dtype == np.float64) != (self.kind == REGRESSION):
                raise ValueError(f"targets of {name!r} must suit a {self.kind}, but are {split.targets.dtype}.")
        object.__setattr__(self, "content_hash", _content_hash(self))

    @property
    def n_labels(self) -> int:
        """Width of the head: the number of classes, or 1 for regression."""
        return 1 if self.label_names is None else len(self.label_names)

    @property
    def primary_metric(self) -> str:
        return next(iter(self.metrics))

    @property
    def splits(self) -> dict[str, Split]:
        return {"train": self.train, "search": self.search, "report": self.report}

    def evaluate(self, predictions: npt.ArrayLike, targets: npt.ArrayLike) -> dict[str, float]:
        """Score predictions.

        Args:
            predictions: Class indices, or predicted values (n).
            targets: The split's targets (n).

        Returns:
            Natural values by metric name. A metric that is undefined here, such as the correlation of a constant, is
            absent.

        Raises:
            ValueError: If shapes differ, nothing is given, or a predicted value is not finite.
        """
        dtype = np.float64 if self.kind == REGRESSION else np.int64
        predicted, actual = np.asarray(predictions, dtype=dtype), np.asarray(targets, dtype=dtype)
        if predicted.shape != actual.shape or predicted.ndim != 1 or not predicted.size:
            raise ValueError(
                f"predictions and targets must be equally long, not empty and one-dimensional, but their shapes are "
                f"{predicted.shape} and {actual.shape}."
            )
        if not np.isfinite(predicted).all():
            raise ValueError(f"predictions must be finite, but {int((~np.isfinite(predicted)).sum())} are not.")
        return compute_metrics(tuple(self.metrics), predicted, actual)

    def default_fidelity(self) -> Fidelity:
        """Training that takes a six-layer MiniLM a few seconds on two CPU cores.

        Epochs, from two to ten, over at most 1,350 examples, so that a candidate sees about 4,000 examples, or fewer
        where texts are long: 45,000 tokens in all, estimated as 1.3 per word and at most 128 per example, as far as
        that leaves two epochs over 1,000 examples.
        """
        n_examples = min(len(self.train), 1350)
        tokens = self._tokens_per_example(n_examples)
        n_examples = min(n_examples, max(1000, int(_DEFAULT_TOKENS / (2 * tokens))))
        epochs = min(int(_DEFAULT_TOKENS / (n_examples * tokens)), math.ceil(_DEFAULT_EXAMPLES / n_examples))
        return Fidelity(train_examples=n_examples, epochs=min(max(epochs, 2), 10))

    def _tokens_per_example(self, n: int) -> float:
        sample = self.train.head(n)
        columns = [sample.texts] if sample.pairs is None else [sample.texts, sample.pairs]
        tokens = [3 + 1.3 * sum(len(text.split(maxsplit=100)) for text in row) for row in zip(*columns, strict=True)]
        return sum(min(count, 128.0) for count in tokens) / len(tokens)

    def settings(self) -> dict[str, Any]:
        """What defines the task, JSON-ready, for `StudySpec.task`; equal settings mean equal data and splits."""
        return {
            "name": self.name,
            "source": self.source,
            "kind": self.kind,
            "label_names": None if self.label_names is None else list(self.label_names),
            "metrics": list(self.metrics),
            "n_examples": {name: len(split) for name, split in self.splits.items()},
            **self.options,
            "content_hash": self.content_hash,
        }


def _content_hash(task: Task) -> str:
    digest = hashlib.sha256()

    def update(value: object) -> None:
        digest.update(json.dumps(value, ensure_ascii=True).encode() + b"\n")

    update([task.kind, task.label_names, [[name, str(way)] for name, way in task.metrics.items()]])
    for name, split in task.splits.items():
        update([name, len(split), split.pairs is not None])
        update(split.texts)
        update(split.pairs)
        digest.update(split.targets.astype(split.targets.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
