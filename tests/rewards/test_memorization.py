from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from autopeft.configuration import ModuleSpec
from autopeft.exceptions import RewardError, UsageError
from autopeft.rewards import REWARDS
from autopeft.rewards._memorization import Memorization
from autopeft.tasks import Split
from tests.rewards.candidates import on_candidate, placed
from tests.training.toys import lora, toy_split, toy_task

REWARD = REWARDS["memorization"]


def numbered(n, *, copies_of=()):
    """Distinct texts, and copies of some of them at the end."""
    base = toy_split(n, seed=3)
    texts = [f"{text} {'abcdefghij'[i % 10]}{'klmnopqrst'[i // 10 % 10]}{i}" for i, text in enumerate(base.texts)]
    texts += [texts[i] for i in copies_of]
    targets = np.r_[base.targets, base.targets[list(copies_of)]].astype(np.int64)
    return Split(texts=tuple(texts), pairs=None, targets=targets)


def task_of(train):
    return dataclasses.replace(toy_task(), train=train)


def test_value_is_twice_scikit_learns_area_minus_one():
    def look(candidate):
        members, others = REWARD._rows(candidate)
        losses = candidate.losses(candidate.task.train)
        return members, others, losses, REWARD.measure(candidate)

    (members, others, losses, found), _ = on_candidate(look, task=task_of(numbered(200)), n=100)
    labels = np.r_[np.ones(len(members)), np.zeros(len(others))]
    area = roc_auc_score(labels, -np.r_[losses[members], losses[others]])
    assert found.value == pytest.approx(2 * area - 1)
    assert found.details["auc"] == pytest.approx(area)
    assert found.details["member_loss"] == pytest.approx(losses[members].mean())
    assert found.details["non_member_loss"] == pytest.approx(losses[others].mean())


@pytest.mark.parametrize("report", [False, True])
def test_members_were_trained_on_and_non_members_never(report):
    (members, others), _ = on_candidate(
        lambda candidate: REWARD._rows(candidate), task=task_of(numbered(200)), n=100, report=report
    )
    assert len(members) == len(others) == len(set(members) | set(others)) / 2 == 30
    assert max(members) < 100
    # 30 % of 200 are held out, half of them for each split.
    assert min(others) >= 140


def test_search_and_report_attack_different_examples():
    rows = []
    on_candidate(lambda c: rows.append(REWARD._rows(c)), task=task_of(numbered(200)), n=100, report=True)
    for search, report in zip(*rows, strict=True):
        assert not set(search) & set(report)


def test_text_that_is_also_trained_on_is_no_non_member():
    # The last 30 of 130 are copies of the first 30, which are trained on.
    train = numbered(100, copies_of=range(30))
    messages = []

    def look(candidate):
        with pytest.raises(RewardError) as error:
            REWARD.measure(candidate)
        messages.append(str(error.value))

    on_candidate(look, task=task_of(train), n=80)
    assert "at least 20 distinct members and non-members" in messages[0]
    assert "40 and 5;" in messages[0]


def test_a_model_that_has_seen_some_texts_often_remembers_them():
    # Labels are coin flips: what is right about members can only be remembered.
    rng = np.random.default_rng(0)
    base = numbered(160)
    targets = rng.integers(0, 2, len(base.texts))
    task = task_of(Split(texts=base.texts, pairs=None, targets=targets))
    full = ModuleSpec.make("full")
    everything = placed(*((layer, part, full) for layer in range(3) for part in ("q", "v", "up", "down")), rate=2e-3)
    strong, outcome = on_candidate(REWARD.measure, everything, task=task, n=60, epochs=30)
    weak, _ = on_candidate(REWARD.measure, lora((), rate=1e-4), task=task, n=60, epochs=1)
    assert outcome.curve[-1].metrics["train_loss"] < 0.2
    assert strong.value > 0.5 > abs(weak.value)
    assert strong.details["tpr_at_10_percent_fpr"] > weak.details["tpr_at_10_percent_fpr"]


def test_rates_that_examples_cannot_resolve_are_left_out():
    found, _ = on_candidate(REWARD.measure, task=task_of(numbered(200)), n=100)
    # 30 non-members: a false positive is 3 %.
    assert "tpr_at_10_percent_fpr" in found.details
    assert "tpr_at_1_percent_fpr" not in found.details


def test_draws_repeat():
    task = task_of(numbered(200))
    first, again = (on_candidate(REWARD.measure, task=task, n=100)[0] for _ in range(2))
    assert first == again


def test_too_small_training_split_is_refused_with_the_reason():
    with pytest.raises(UsageError, match="toy has only 100; leave it out"):
        REWARD.check(task_of(numbered(100)))
    REWARD.check(task_of(numbered(140)))


def test_reserve_is_the_share_up_to_the_most():
    assert [REWARD.reserve(n) for n in (100, 1000, 67_349)] == [30, 300, 1000]


@pytest.mark.parametrize("options", [{"share": 0.0}, {"share": 0.6}, {"max_examples": 10}])
def test_impossible_options_are_refused(options):
    with pytest.raises(UsageError, match=f"memorization.{next(iter(options))}"):
        Memorization(**options)
