"""Oracles: the definitions (disjointness, shares within one row), counted by brute force."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopeft.tasks._splits import Examples, carve, normalize, strata_of, stratified_order


@given(st.lists(st.integers(0, 4), min_size=1, max_size=120), st.integers(0, 2**31))
def test_every_prefix_is_stratified(strata: list[int], seed: int) -> None:
    values = np.array(strata, dtype=np.int64)
    order = stratified_order(values, np.random.default_rng(seed))
    assert sorted(order) == list(range(len(strata)))
    counts = Counter(strata)
    for length in range(1, len(strata) + 1):
        taken = Counter(values[order[:length]].tolist())
        # A class's i-th row lies in its i-th of n_c equal intervals, so at a common cut each class is off by less than
        # one row, and the cut itself by less than one row per class.
        for stratum, count in counts.items():
            assert abs(taken[stratum] - count * length / len(strata)) < 1 + len(counts)


def test_order_depends_on_the_seed_only() -> None:
    strata = np.arange(50) % 3
    first, again, other = (stratified_order(strata, np.random.default_rng(seed)).tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_values_are_stratified_by_quantile() -> None:
    strata = strata_of(np.linspace(0, 1, 1000))
    assert Counter(strata.tolist()) == dict.fromkeys(range(10), 100)


def make_examples(n: int, seed: int) -> Examples:
    rng = np.random.default_rng(seed)
    texts = [f"text {rng.integers(n)}" + " " * int(rng.integers(3)) for _ in range(n)]
    return Examples(texts=texts, pairs=None, targets=rng.integers(3, size=n))


@given(st.integers(1, 200), st.integers(0, 1000), st.integers(0, 60), st.integers(0, 60))
def test_parts_never_share_a_text(n: int, seed: int, n_first: int, n_second: int) -> None:
    examples = make_examples(n, seed)
    excluded = {normalize(text) for text in examples.texts[:5]}
    parts, rest = carve(examples, [n_first, n_second], seed=seed, exclude=excluded)
    keys = [{normalize(examples.texts[row]) for row in rows} for rows in (*parts, rest)]
    assert len(keys[0]) == len(parts[0]) <= n_first
    assert len(keys[1]) == len(parts[1]) <= n_second
    assert sum(map(len, keys)) == len(set.union(*keys))
    # Nothing but the excluded texts and held-out repetitions is lost.
    assert keys[0] | keys[1] | keys[2] | excluded == {normalize(text) for text in examples.texts}
    lost = set(range(n)) - {int(row) for rows in (*parts, rest) for row in rows}
    assert {normalize(examples.texts[row]) for row in lost} <= keys[0] | keys[1] | excluded


@pytest.mark.parametrize("seed", range(10))
def test_training_rows_hold_every_class(seed: int) -> None:
    targets = np.array([0] * 50 + [1] * 2 + [2])
    examples = Examples(texts=[f"text {row}" for row in range(53)], pairs=None, targets=targets)
    (held,), rest = carve(examples, [1000], seed=seed)
    assert set(targets[rest]) == {0, 1, 2}
    assert len(held) == 50


def test_held_out_part_does_not_depend_on_later_parts() -> None:
    examples = make_examples(100, 0)
    (first,), _ = carve(examples, [20], seed=3)
    (same, _), _ = carve(examples, [20, 30], seed=3)
    assert first.tolist() == same.tolist()


def test_pairs_are_the_same_example_only_if_both_texts_agree() -> None:
    examples = Examples(texts=["a", "A ", "a"], pairs=["b", "B", "c"], targets=np.array([0, 0, 1]))
    assert len(set(examples.keys())) == 2
    split = examples.take([2, 0])
    assert (split.texts, split.pairs, split.targets.tolist()) == (("a", "a"), ("c", "b"), [1, 0])
