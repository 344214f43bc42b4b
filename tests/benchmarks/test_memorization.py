"""The parts of the memorization study that need no training."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from autopeft.tasks import load_task
from benchmarks.memorization import METHODS, Scale, choose, effects, interval, make_task, reward_of, tables
from tests.study.builders import make_trial

SMALL = Scale(members=60, duplicated=15, copies=3, search=30, report=40)


def test_the_task_has_its_duplicates_and_its_noise_and_keeps_non_members_apart() -> None:
    task = make_task(SMALL, 1)
    n = SMALL.train_examples
    assert (n, len(task.train), len(task.search), len(task.report)) == (60 + 15 * 2, n + 60, 30, 40)
    members, others = task.train.texts[:n], task.train.texts[n:]
    assert Counter(Counter(members).values()) == {1: 45, 3: 15}
    assert not set(members) & set(others)
    assert len(set(others)) == 60
    assert reward_of(SMALL).reserve(len(task.train)) == 60


def test_a_fifth_of_the_labels_is_wrong_on_both_sides() -> None:
    scale = Scale()
    task, topics = make_task(scale, 1), load_task("stdlib/topics", seed=1)
    right = dict(zip(topics.train.texts, topics.train.targets, strict=True))
    labels = dict(zip(task.train.texts, task.train.targets, strict=True))
    for texts in (task.train.texts[: scale.train_examples], task.train.texts[scale.train_examples :]):
        wrong = [right[text] != labels[text] for text in set(texts)]
        # 240 draws of 0.2: a deviation of 0.08 is three standard errors.
        assert np.mean(wrong) == pytest.approx(0.2, abs=0.08)


@pytest.mark.parametrize("scale", [Scale(), SMALL, Scale(members=100, duplicated=7, copies=9)])
def test_the_reward_holds_out_the_non_members_and_nothing_else(scale: Scale) -> None:
    assert reward_of(scale).reserve(scale.train_examples + scale.members) == scale.members


def rewarded(number: int, accuracy: float, memorization: float):  # type: ignore[no-untyped-def]
    trial = make_trial(number, accuracy, 1000)
    trial.measurements[0].metrics["memorization"] = memorization  # type: ignore[index]
    return trial


def test_choice_is_the_least_memorization_among_those_good_enough() -> None:
    trials = [rewarded(0, 0.5, 0.9), rewarded(1, 0.49, 0.2), rewarded(2, 0.3, 0.1)]
    assert choose(trials, floor=0.48).number == 1
    assert choose(trials, floor=0.2).number == 2
    assert choose(trials, floor=0.6).number == 0


def test_tables_show_means_intervals_and_paired_differences() -> None:
    keys = ("accuracy", "memorization", "memorization.tpr_at_1_percent_fpr", "hypervolume")
    seeds = [
        {name: {**dict.fromkeys(keys, 0.1 * k + 0.01 * seed), "parameters": 1000} for k, name in enumerate(METHODS)}
        for seed in range(3)
    ]
    text = tables(seeds)
    mean, low, high = interval([0.3, 0.31, 0.32])
    assert f"| searched masks | 1,000 | {mean:.3f} [{low:.3f}, {high:.3f}] |" in text
    # The seeds' own differences cancel in pairs.
    assert "| searched masks minus full fine-tuning | 0.300 [0.300, 0.300] | 0.300 [0.300, 0.300] |" in text


def test_effects_are_those_that_made_the_numbers() -> None:
    """Oracle: memorization made of accuracy, layers and a seed's own level."""
    from types import SimpleNamespace

    from autopeft.configuration import Configuration, ModuleSpec, Site
    from autopeft.study import TrialState

    rng = np.random.default_rng(0)

    def trial(seed: int):  # type: ignore[no-untyped-def]
        accuracy, layers = float(rng.random()), int(rng.integers(1, 7))
        memorization = 0.1 * seed + 2.0 * accuracy + 0.05 * layers + 1e-4 * float(rng.standard_normal())
        pairs = [(Site(layer=layer, part="q"), ModuleSpec.make("lora", 2)) for layer in range(layers)]
        values = {"accuracy": accuracy, "memorization": memorization}
        return SimpleNamespace(
            state=TrialState.COMPLETE,
            configuration=Configuration.make(pairs, learning_rate=1e-3),
            value=lambda name, split: values[name],
        )

    studies = {
        f"{kind}-{seed}": [trial(seed) for _ in range(8)] for kind in ("random", "bayesian") for seed in range(3)
    }
    store = SimpleNamespace(load_study=lambda name: SimpleNamespace(of_kind=lambda *_, **__: studies[name]))
    text = effects(store, 3)  # type: ignore[arg-type]
    assert "among 48 masks" in text
    assert "per point of accuracy +0.020" in text
    assert "per tuned layer +0.050" in text


def test_the_page_has_a_table_row_per_method() -> None:
    page = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")
    assert all(f"\n| {name} | " in page for name in METHODS)
