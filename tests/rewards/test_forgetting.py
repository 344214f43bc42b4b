from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM

from autopeft.configuration import Configuration, ModuleSpec, Site
from autopeft.exceptions import RewardError, UsageError
from autopeft.modules import merged_state
from autopeft.rewards import RewardPanel
from autopeft.rewards._forgetting import Forgetting
from autopeft.training import TrainingSettings, TrialRunner
from tests.backbones.test_language_model import language_model, loaded
from tests.rewards.candidates import _Look, on_candidate, placed
from tests.training.toys import job, lora, toy_task

FEW = {"max_texts": 12, "max_tokens": 24}


def trained(folder: Path, look, configuration, architecture="bert", **keywords):
    """A candidate on a backbone that was loaded from a folder with a language-model head."""
    if not (folder / "config.json").exists():
        language_model(folder, architecture)
    looking = _Look(look)
    runner = TrialRunner(
        loaded(folder), toy_task(n_train=100), TrainingSettings(batch_size=8, max_tokens=48), rewards=looking
    )
    (outcome,) = runner.run([job(configuration, **keywords)])
    assert outcome.failure is None, outcome.failure
    return looking.found


def by_transformers(model, batches):
    """Oracle: transformers' own loss of the language model, weighted by the tokens that each batch predicts."""
    total = n = 0.0
    with torch.inference_mode():
        for item in batches:
            labels = item.labels.clone()
            if type(model).__name__.endswith(("LMHeadModel", "ForCausalLM")):
                # Transformers shifts by itself.
                labels = torch.where(item.attention_mask == 1, item.input_ids, -100)
            loss = model(input_ids=item.input_ids, attention_mask=item.attention_mask, labels=labels).loss
            wanted = int((item.labels != -100).sum())
            total += float(loss) * wanted
            n += wanted
    return total / n


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "gpt2", "llama"])
def test_loss_before_is_transformers_own(tmp_path, architecture):
    reward = Forgetting(**FEW)
    model = language_model(tmp_path, architecture)
    found = trained(tmp_path, reward.measure, lora((1,)), architecture)
    assert found.details["before"] == pytest.approx(by_transformers(model, reward._shared[""].batches), rel=1e-4)
    assert found.value == pytest.approx(found.details["after"] - found.details["before"])
    assert found.value != 0


@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
def test_loss_after_is_that_of_the_merged_language_model(tmp_path, architecture):
    reward = Forgetting(**FEW)
    model = language_model(tmp_path, architecture)
    configuration = lora((0, 2), rank=4, rate=2e-2)
    kept = {}

    def look(candidate):
        kept.update(merged_state(candidate.backbone, candidate.configuration, candidate.state()))
        return reward.measure(candidate)

    found = trained(tmp_path, look, configuration, architecture)
    names = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in kept.items():
            if name in names:
                names[name].copy_(value)
    assert found.details["after"] == pytest.approx(by_transformers(model, reward._shared[""].batches), rel=1e-3)


def test_head_alone_forgets_nothing_and_more_training_forgets_more(tmp_path):
    reward = Forgetting(**FEW)
    full = Configuration.make(
        [(Site(layer=layer, part=part), ModuleSpec.make("full")) for layer in range(3) for part in ("q", "up", "down")],
        learning_rate=2e-2,
    )
    language_model(tmp_path, "bert")
    values = [
        trained(tmp_path, reward.measure, configuration, epochs=epochs).details["after"]
        for configuration, epochs in ((lora(()), 3), (lora((2,), rate=1e-3), 1), (full, 6))
    ]
    before = reward._shared[""].before
    assert values[0] == pytest.approx(before, abs=1e-6)
    assert abs(values[1] - before) < abs(values[2] - before)


def test_texts_and_masks_are_the_same_for_every_candidate_and_seed(tmp_path):
    language_model(tmp_path, "bert")
    batches = []
    for seed in (0, 1):
        reward = Forgetting(**FEW)
        trained(tmp_path, reward.measure, lora((1,)), seed=seed)
        batches.append(reward._shared[""].batches)
    for one, other in zip(*batches, strict=True):
        assert torch.equal(one.input_ids, other.input_ids)
        assert torch.equal(one.labels, other.labels)


def test_only_masked_tokens_count_and_about_as_many_as_asked(tmp_path):
    reward = Forgetting(max_texts=60, max_tokens=48, mask_share=0.3)
    trained(tmp_path, reward.prepare, lora(()))
    batches = reward._shared[""].batches
    n_masked = sum(int((item.labels != -100).sum()) for item in batches)
    n_tokens = sum(int(item.attention_mask.sum()) - 2 * len(item.input_ids) for item in batches)
    assert n_masked / n_tokens == pytest.approx(0.3, abs=0.04)
    for item in batches:
        is_masked = item.labels != -100
        assert (item.input_ids[is_masked] == 4).all()  # [MASK]
        assert ((item.attention_mask == 1) | ~is_masked).all()


@pytest.mark.parametrize(
    "module",
    [
        (1, "attention", ModuleSpec.make("prefix", 3)),
        (1, "ffn", ModuleSpec.make("mix_lora", 2, experts=2)),
        (1, "ffn", ModuleSpec.make("serial_adapter", 4)),
    ],
    ids=lambda module: module[2].type,
)
def test_any_module_can_be_measured(tmp_path, module):
    reward = Forgetting(**FEW)
    found = trained(tmp_path, reward.measure, placed(module))
    assert np.isfinite(found.value)
    assert found.value != 0


def test_head_and_texts_are_loaded_once(tmp_path, monkeypatch):
    language_model(tmp_path, "bert")
    loads = []
    original = AutoModelForMaskedLM.from_pretrained
    monkeypatch.setattr(AutoModelForMaskedLM, "from_pretrained", lambda *a, **k: loads.append(1) or original(*a, **k))
    reward = Forgetting(**FEW)
    runner = TrialRunner(loaded(tmp_path), toy_task(), TrainingSettings(batch_size=8), rewards=RewardPanel([reward]))
    outcomes = runner.run([job(lora((layer,))) for layer in range(3)])
    assert all("forgetting" in outcome.measurements[0].metrics for outcome in outcomes)
    assert len(loads) == 1


def test_backbone_without_a_head_fails_the_trial_with_the_reason():
    with pytest.raises(AssertionError, match="a wrapped model has no checkpoint"):
        on_candidate(lambda candidate: RewardPanel([Forgetting(**FEW)]).measure(candidate))


def test_text_of_one_s_own(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("the list is a file of the test and the number is not very good at all in the end\n")
    reward = Forgetting(text=str(path), max_texts=5, mask_share=0.5)
    trained(tmp_path / "model", reward.measure, lora((1,)))
    assert sum(len(item.input_ids) for item in reward._shared[""].batches) == 1


def test_text_without_a_token_to_predict_is_refused(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("the list is a file of the test and the number is not very good at all in the end\n")
    reward = Forgetting(text=str(path), mask_share=1e-9)

    def look(candidate):
        with pytest.raises(RewardError, match="no token to predict"):
            reward.measure(candidate)

    trained(tmp_path / "model", look, lora((1,)))


@pytest.mark.parametrize("options", [{"max_texts": 0}, {"max_tokens": 4}, {"mask_share": 0.0}, {"mask_share": 1.0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(UsageError, match=f"forgetting.{next(iter(options))}"):
        Forgetting(**options)


def test_settings_hold_the_options_alone():
    assert Forgetting().settings() == {"text": "", "max_texts": 100, "max_tokens": 64, "mask_share": 0.15}
