from __future__ import annotations

import pytest

from autopeft.exceptions import UsageError
from autopeft.objectives import Direction
from autopeft.rewards import REWARDS
from autopeft.rewards._robustness import Robustness
from tests.rewards.candidates import on_candidate
from tests.training.toys import toy_split, toy_task

REWARD = REWARDS["robustness"]


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_value_is_the_metric_on_the_noisy_texts(kind):
    def look(candidate):
        noisy = REWARD.noisy(candidate.data, candidate.seed)
        expected = candidate.task.evaluate(candidate.predictions(noisy), candidate.data.targets)
        return REWARD.measure(candidate), expected, candidate.evaluate()

    task = toy_task(n_train=100, regression=kind == "regression")
    (found, expected, clean), outcome = on_candidate(look, task=task)
    metric = task.primary_metric
    assert found.value == pytest.approx(expected[metric])
    assert found.details["drop"] == pytest.approx(clean[metric] - found.value)
    # Kernels that other batches choose round otherwise.
    assert clean[metric] == pytest.approx(outcome.measurements[0].metrics[metric], rel=1e-3)


def test_noise_hits_both_texts_differently_and_depends_on_the_seed_alone():
    split = toy_split(50, seed=0, pairs=True)
    strong = Robustness(share=0.9)
    first, again, other = strong.noisy(split, 0), strong.noisy(split, 0), strong.noisy(split, 1)
    assert (first.texts, first.pairs) == (again.texts, again.pairs)
    assert first.texts != other.texts
    assert first.texts != split.texts
    assert first.pairs != split.pairs
    assert first.targets.tolist() == split.targets.tolist()
    same = type(split)(texts=split.texts, pairs=split.texts, targets=split.targets.copy())
    assert strong.noisy(same, 0).texts != strong.noisy(same, 0).pairs


def test_a_word_that_decides_is_lost_to_noise():
    # The label is one word of the text: with every word hit, a model that reads it must get worse.
    task = toy_task(n_train=200, n_search=100)
    found, outcome = on_candidate(Robustness(share=1.0).measure, task=task, n=200, epochs=8)
    assert outcome.measurements[0].metrics["accuracy"] > 0.9
    assert found.details["drop"] > 0.1


def test_direction_is_the_metric_s():
    assert REWARD.direction(toy_task()) is Direction.MAXIMIZE


def test_share_must_be_one():
    with pytest.raises(UsageError, match=r"robustness.share must lie in \(0, 1\]"):
        Robustness(share=0.0)
