from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from autopeft.configuration import Configuration, ModuleSpec, Site
from autopeft.modules import inject
from autopeft.training import RewardReading, TrainedCandidate
from tests.tiny import tiny_backbone, tiny_batch
from tests.training.toys import job, lora, toy_runner, toy_split, toy_task

PREFIX = Configuration.make(
    [(Site(layer=layer, part="attention"), ModuleSpec.make("prefix", 3)) for layer in range(3)], learning_rate=1e-2
)


class Looking:
    """Rewards that let a test look at trained candidates."""

    def __init__(self, look: Callable[[TrainedCandidate], Any]) -> None:
        self._look = look
        self.seen: list[Any] = []

    def measure(self, candidate: TrainedCandidate) -> RewardReading:
        self.seen.append(self._look(candidate))
        return RewardReading()


def plain_logits(outcome, configuration, texts, *, architecture="bert", n_labels=2, seed=99):
    """Oracle: the state in a fresh injection, each text alone through transformers' own forward pass."""
    backbone = tiny_backbone(architecture, n_labels=n_labels)
    rows = []
    with inject(backbone, [configuration], seeds=[seed]) as injection:
        injection.load_state_dict(0, outcome.state)
        injection.begin_batch(0, training=False)
        for text in texts:
            batch = dict(backbone.tokenizer(text, return_tensors="pt", truncation=True, max_length=48))
            offset = injection.position_offset(0)
            positions = backbone.position_ids(batch["attention_mask"], offset) if offset else None
            rows.append(backbone.forward(**batch, position_ids=positions).detach().numpy()[0])
    return np.array(rows)


@pytest.mark.parametrize("configuration", [lora((0, 2)), lora(()), PREFIX], ids=["lora", "head", "prefix"])
@pytest.mark.parametrize("architecture", ["bert", "roberta", "gpt2", "llama"])
def test_outputs_are_those_of_the_trained_state(architecture, configuration):
    other = toy_split(9, seed=5)
    looking = Looking(lambda candidate: (candidate.outputs(), candidate.outputs(other)))
    runner = toy_runner(architecture, rewards=looking)
    (outcome,) = runner.run([job(configuration)], keep_state=True)
    own, others = looking.seen[0]
    for found, texts in ((own, runner.task.search.texts), (others, other.texts)):
        expected = plain_logits(outcome, configuration, texts, architecture=architecture)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_everything_derived_from_outputs_agrees_with_torch():
    looking = Looking(lambda c: (c.outputs(), c.predictions(), c.probabilities(), c.losses(), c.evaluate()))
    runner = toy_runner(rewards=looking)
    (outcome,) = runner.run([job(lora((1,)))])
    outputs, predictions, probabilities, losses, metrics = looking.seen[0]
    targets = torch.tensor(runner.task.search.targets)
    logits = torch.tensor(outputs)
    np.testing.assert_allclose(probabilities, torch.softmax(logits, 1), rtol=1e-9)
    np.testing.assert_allclose(losses, torch.nn.functional.cross_entropy(logits, targets, reduction="none"), rtol=1e-9)
    assert metrics == pytest.approx(runner.task.evaluate(predictions, runner.task.search.targets))
    assert metrics["accuracy"] == outcome.measurements[0].metrics["accuracy"]


def test_regression_gives_natural_values_and_squared_errors():
    looking = Looking(lambda c: (c.outputs(), c.predictions(), c.losses()))
    task = toy_task(regression=True)
    runner = toy_runner(task=task, rewards=looking)
    configuration = lora((1,))
    (outcome,) = runner.run([job(configuration)], keep_state=True)
    outputs, predictions, losses = looking.seen[0]
    # The kept state has the unit of the targets folded into its head.
    expected = plain_logits(outcome, configuration, task.search.texts, n_labels=1)
    np.testing.assert_allclose(outputs, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(losses, (predictions - task.search.targets) ** 2)
    with pytest.raises(ValueError, match="no classes"):
        Looking(lambda c: c.probabilities()).measure(_candidate(task))


def _candidate(task):
    looking = Looking(lambda candidate: candidate)
    toy_runner(task=task, rewards=looking).run([job(lora((1,)))])
    return looking.seen[0]


def test_each_candidate_of_a_cohort_is_seen_as_if_alone():
    configurations = [lora((0, 1, 2)), lora((2,), rank=4), PREFIX]
    together = Looking(lambda c: c.outputs())
    toy_runner(rewards=together).run([job(item, seed=k) for k, item in enumerate(configurations)])
    # Jobs whose texts are cut differently are other cohorts and come later.
    for k, item in enumerate(configurations):
        alone = Looking(lambda c: c.outputs())
        toy_runner(rewards=alone).run([job(item, seed=k)])
        assert any(np.allclose(alone.seen[0], found, rtol=1e-3, atol=1e-4) for found in together.seen)


def test_every_asked_split_is_looked_at_with_its_own_data():
    looking = Looking(lambda c: (c.split, len(c.data.texts), c.seed, c.fidelity.train_examples, len(c.outputs())))
    toy_runner(rewards=looking).run([job(lora((1,)), seed=4, report=True)])
    assert looking.seen == [("search", 24, 4, 40, 24), ("report", 20, 4, 40, 20)]


def test_random_numbers_depend_on_seed_and_purpose_alone():
    looking = Looking(lambda c: [tuple(c.rng(purpose).random(3)) for purpose in ("a", "a", "b")])
    runner = toy_runner(rewards=looking)
    for seed in (0, 0, 1):
        runner.run([job(lora((1,)), seed=seed)])
    first, again, other = looking.seen
    assert first == again
    assert first[0] == first[1]
    assert len({first[0], first[2], other[0], other[2]}) == 4


def test_backbone_is_plain_outside_the_blocks_and_tuned_inside():
    batch = tiny_batch()
    found = {}

    def look(candidate):
        found["outside"] = candidate.backbone.forward(**batch)
        with candidate.installed():
            found["inside"] = candidate.backbone.forward(**batch)
        with pytest.raises(RuntimeError), candidate.installed(is_fast=True):
            raise RuntimeError
        found["after"] = candidate.backbone.forward(**batch)

    runner = toy_runner(rewards=Looking(look))
    before = runner.backbone.forward(**batch)
    runner.run([job(lora((0, 1, 2)))])
    assert torch.equal(found["outside"], before)
    assert torch.equal(found["after"], before)
    assert torch.equal(runner.backbone.forward(**batch), before)
    assert not torch.allclose(found["inside"], before)
