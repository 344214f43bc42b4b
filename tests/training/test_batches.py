from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from autopeft.training._batches import Batch, BatchPlan, evaluation_batches, rung_rows, split_batch

lengths_of = st.lists(st.integers(1, 60), min_size=1, max_size=200).map(np.array)


@given(lengths_of, st.integers(1, 17), st.integers(0, 5), st.integers(0, 3))
def test_every_example_comes_once_per_epoch_and_fits(lengths, batch_size, seed, epoch):
    plan = BatchPlan(lengths, len(lengths), batch_size)
    batches = plan.epoch(seed, epoch)
    assert sorted(np.concatenate([batch.rows for batch in batches])) == list(range(len(lengths)))
    assert all(lengths[batch.rows].max() <= batch.length for batch in batches)
    assert len(batches) == plan.steps_per_epoch == -(-len(lengths) // batch_size)
    assert sum(len(batch.rows) * batch.length for batch in batches) == plan.tokens_per_epoch


@given(lengths_of, st.integers(1, 17), st.integers(0, 3))
def test_shapes_of_the_steps_do_not_depend_on_the_seed(lengths, batch_size, epoch):
    plan = BatchPlan(lengths, len(lengths), batch_size)
    first, second = plan.epoch(0, epoch), plan.epoch(1, epoch)
    assert [(len(b.rows), b.length) for b in first] == [(len(b.rows), b.length) for b in second]


def test_seed_and_epoch_change_which_examples_meet():
    lengths = np.full(64, 7)
    plan = BatchPlan(lengths, 64, 8)
    runs = [plan.epoch(seed, epoch)[0].rows.tolist() for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert len({tuple(run) for run in runs}) == 3
    assert plan.epoch(0, 0)[0].rows.tolist() == runs[0]


def test_lower_fidelity_uses_the_first_examples():
    plan = BatchPlan(np.arange(1, 101), 30, 8)
    assert sorted(np.concatenate([batch.rows for batch in plan.epoch(0, 0)])) == list(range(30))


def test_bucketing_saves_most_of_the_padding():
    # Oracle: the padding of batches drawn at random from the same lengths.
    rng = np.random.default_rng(0)
    lengths = np.minimum(3 + rng.geometric(0.09, 1347), 64)
    order = rng.permutation(len(lengths))
    random = sum(lengths[rows].max() * len(rows) for rows in np.array_split(order, 85))
    bucketed = BatchPlan(lengths, len(lengths), 16).tokens_per_epoch
    assert bucketed < 1.1 * lengths.sum()
    assert random > 2 * lengths.sum()


@given(lengths_of, st.integers(1, 100))
def test_evaluation_batches_cover_all_within_the_limit(lengths, limit):
    batches = evaluation_batches(lengths, np.arange(len(lengths)), limit)
    assert sorted(np.concatenate([batch.rows for batch in batches])) == list(range(len(lengths)))
    for batch in batches:
        assert batch.length == lengths[batch.rows].max()
        assert len(batch.rows) == 1 or len(batch.rows) * batch.length <= limit


def test_micro_batches_are_the_batch_in_order():
    batch = Batch(rows=np.arange(10), length=5)
    parts = split_batch(batch, 4)
    assert np.concatenate([part.rows for part in parts]).tolist() == list(range(10))
    assert {part.length for part in parts} == {5}
    assert [len(part.rows) for part in split_batch(Batch(rows=np.arange(2), length=5), 4)] == [1, 1]


@given(st.integers(1, 400), st.integers(1, 400))
def test_rung_rows_are_some_examples_and_always_the_same(n_examples, n_wanted):
    rows = rung_rows(n_examples, n_wanted)
    if n_wanted >= n_examples:
        assert rows is None
        return
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert len(rows) == n_wanted
    assert 0 <= rows[0] <= rows[-1] < n_examples
    assert rows.tolist() == rung_rows(n_examples, n_wanted).tolist()


def test_rung_rows_are_spread_over_a_split_in_any_order():
    rows = rung_rows(1000, 200)
    counts = np.bincount(rows // 100, minlength=10)
    assert counts.min() >= 10
    assert rung_rows(1000, None) is None
