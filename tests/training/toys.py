"""A small task with something to learn: texts of very different lengths, the label in one of their words."""

from __future__ import annotations

import numpy as np

from autopeft.objectives import Direction
from autopeft.tasks import Split, Task

_WORDS = ("the", "is", "file", "test", "list", "number", "x", "yz", "3")


def toy_split(n_examples: int, seed: int, *, pairs: bool = False, regression: bool = False) -> Split:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n_examples)
    lengths = rng.integers(1, 20, n_examples)
    texts = []
    for label, length in zip(labels, lengths, strict=True):
        words = list(rng.choice(_WORDS, length))
        words.insert(int(rng.integers(0, length + 1)), "good" if label else "bad")
        texts.append(" ".join(words))
    return Split(
        texts=tuple(texts),
        pairs=tuple(" ".join(rng.choice(_WORDS, 3)) for _ in texts) if pairs else None,
        targets=labels + 0.25 * rng.standard_normal(n_examples) if regression else labels.astype(np.int64),
    )


def toy_task(
    n_train: int = 40, n_search: int = 24, n_report: int = 20, *, pairs: bool = False, regression: bool = False
) -> Task:
    metric = {"pearson": Direction.MAXIMIZE} if regression else {"accuracy": Direction.MAXIMIZE}
    splits = [
        toy_split(n, seed, pairs=pairs, regression=regression) for seed, n in enumerate((n_train, n_search, n_report))
    ]
    return Task(
        name="toy",
        source="made in code",
        description="The label is one of the words.",
        kind="regression" if regression else "classification",
        label_names=None if regression else ("bad", "good"),
        metrics=metric,
        train=splits[0],
        search=splits[1],
        report=splits[2],
    )
