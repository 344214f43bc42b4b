from __future__ import annotations

import dataclasses
import errno
import logging
from pathlib import Path

import pytest
import torch

from autopeft.configuration import Configuration, ModuleSpec, Site, parameter_count
from autopeft.modules import MODULES, inject
from autopeft.study import Fidelity
from autopeft.training import TrainingSettings
from tests.tiny import tiny_backbone, tiny_batch
from tests.training.toys import job, lora, toy_runner, toy_task

CONFIGURATIONS = {
    "all layers": lora((0, 1, 2)),
    "upper layers": lora((1, 2), parts=("q", "down")),
    "last layer": lora((2,)),
    "head": lora(()),
    "prefix": Configuration.make(
        [(Site(layer=layer, part="attention"), ModuleSpec.make("prefix", 3)) for layer in range(3)], learning_rate=1e-2
    ),
}


def numbers(outcome):
    """All of an outcome that must repeat: everything but times and memory."""
    (measurement,) = outcome.measurements
    return dict(measurement.metrics), [(point.step, point.epoch, dict(point.metrics)) for point in measurement.curve]


def test_training_learns_the_task():
    # The label is a word of the text: a configuration on all layers must find it, a coin would give 0.5.
    runner = toy_runner(task=toy_task(n_train=200, n_search=100))
    (outcome,) = runner.run([job(lora((0, 1, 2), rank=8, rate=1e-2), n=200, epochs=8)])
    assert outcome.measurements[0].metrics["accuracy"] > 0.9
    losses = [point.metrics["train_loss"] for point in outcome.curve]
    assert losses[-1] < 0.5 * losses[0]


def test_measurement_says_what_was_asked_and_what_it_cost():
    runner = toy_runner()
    asked = job(lora((1,)), seed=3)
    (outcome,) = runner.run([asked])
    (measurement,) = outcome.measurements
    assert (measurement.split, measurement.seed, measurement.fidelity) == ("search", 3, asked.fidelity)
    assert {"wall_time_s", "examples_per_s", "tokens_per_s"} <= set(measurement.costs)
    n = parameter_count(asked.configuration, runner.backbone.shapes, MODULES)
    assert measurement.costs["stored_bytes"] == 4 * n
    assert measurement.costs["inference_flops_per_token"] == 0  # LoRA is merged
    assert "trainable_parameters" not in measurement.costs  # every trial has it
    assert all(value > 0 for name, value in measurement.costs.items() if name != "inference_flops_per_token")
    facts = measurement.environment
    assert facts["precision"] == "float32"
    assert (facts["backbone_hash"], facts["task_hash"]) == (runner.backbone.content_hash, runner.task.content_hash)
    assert {"autopeft", "torch", "transformers", "python", "device"} <= set(facts)
    assert (facts["cohort"], facts["first_computed_layer"]) == (1, 1)
    assert measurement.predictions is None
    assert [point.step for point in measurement.curve] == [5, 10]
    assert measurement.curve[-1].wall_time_s == pytest.approx(measurement.costs["wall_time_s"])


def test_score_is_the_last_evaluation_not_the_best(monkeypatch):
    runner = toy_runner()
    scores = iter([0.9, 0.4])
    monkeypatch.setattr(type(runner.task), "evaluate", lambda *_: {"accuracy": next(scores)})
    (outcome,) = runner.run([job(lora((1,)))])
    assert outcome.measurements[0].metrics == {"accuracy": 0.4}
    assert [point.metrics["accuracy"] for point in outcome.curve] == [0.9, 0.4]


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_curve_has_as_many_points_per_epoch_as_asked_and_ends_with_it(n):
    runner = toy_runner(settings=TrainingSettings(batch_size=8, evaluations_per_epoch=n))
    (outcome,) = runner.run([job(lora((1,)))])
    # 40 examples in batches of 8 are 5 steps; more points than steps there cannot be.
    assert len(outcome.curve) == 2 * min(n, 5)
    steps = [point.step for point in outcome.curve]
    assert steps == sorted(set(steps))
    assert {5, 10} <= set(steps)


def test_report_split_is_scored_when_asked_and_keeps_its_predictions():
    runner = toy_runner()
    (outcome,) = runner.run([job(lora((1,)), report=True)])
    search, report = outcome.measurements
    assert (search.split, report.split) == ("search", "report")
    assert len(report.predictions) == 20
    assert report.metrics == runner.task.evaluate(report.predictions, runner.task.report.targets)


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("architecture", ["bert", "roberta", "gpt2", "llama"])
def test_stored_hidden_states_change_nothing(architecture, name):
    # Oracle: the same run computed from the tokens.
    with_states, without = toy_runner(architecture), toy_runner(architecture, memory_cap_bytes=0)
    (got,), (expected,) = (runner.run([job(CONFIGURATIONS[name])]) for runner in (with_states, without))
    first = {"upper layers": 1, "last layer": 2, "head": 3}.get(name, 0)
    assert got.measurements[0].environment["first_computed_layer"] == first
    assert expected.measurements[0].environment["first_computed_layer"] == 0
    for mine, its in zip(got.curve, expected.curve, strict=True):
        assert dict(mine.metrics) == pytest.approx(dict(its.metrics), rel=2e-4, abs=2e-5)


def test_layers_below_the_lowest_module_are_not_computed():
    runner = toy_runner()
    seen = set()
    for index, layer in enumerate(runner.backbone.layers):
        layer.attention.self.key.register_forward_hook(lambda *_, index=index: seen.add(index))
    runner.run([job(lora((2,)))])
    assert seen == {0, 1, 2}  # filling the store
    seen.clear()
    runner.run([job(lora((2,), rank=4)), job(lora(()))])
    assert seen == {2}
    seen.clear()
    runner.run([job(lora(()), seed=5)])
    assert seen == set()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers_repeat_bit_for_bit_whatever_ran_before(dtype):
    jobs = [job(configuration) for configuration in CONFIGURATIONS.values()]
    first = [numbers(toy_runner(dtype=dtype).run([one])[0]) for one in jobs]
    runner = toy_runner(dtype=dtype)
    again = [numbers(runner.run([one])[0]) for one in reversed(jobs)]
    assert again[::-1] == first


def test_seed_changes_the_run():
    runner = toy_runner()
    assert len({str(numbers(runner.run([job(lora((0,)), seed=seed)])[0])) for seed in range(3)}) == 3


def test_backbone_is_as_before(tmp_path):
    runner = toy_runner(cache_dir=tmp_path)
    batch = tiny_batch()
    weights = {name: value.clone() for name, value in runner.backbone.model.state_dict().items()}
    before = runner.backbone.forward(**batch)
    runner.run([job(configuration) for configuration in CONFIGURATIONS.values()])
    assert torch.equal(runner.backbone.forward(**batch), before)
    for name, value in runner.backbone.model.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_interruption_passes_and_leaves_the_backbone_as_before():
    runner = toy_runner()
    batch = tiny_batch()
    before = runner.backbone.forward(**batch)

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run([job(lora((0, 1, 2)))], on_point=interrupt)
    assert torch.equal(runner.backbone.forward(**batch), before)


def test_error_of_the_callback_is_the_callers():
    def fail(*_):
        raise LookupError("the store is gone")

    with pytest.raises(LookupError, match="the store is gone"):
        toy_runner().run([job(lora((0,)))], on_point=fail)


def test_configuration_that_does_not_fit_fails_alone():
    # Layer 9 does not exist; its companions must not notice.
    runner = toy_runner()
    jobs = [job(lora((1,))), job(lora((9,))), job(lora((2,)))]
    outcomes = runner.run(jobs)
    assert outcomes[1].failure.reason == "error"
    assert "layer 9 does not exist" in outcomes[1].failure.message
    assert "Traceback" in outcomes[1].failure.traceback
    for k in (0, 2):
        assert numbers(outcomes[k])[0] == numbers(runner.run([jobs[k]])[0])[0]


def test_fidelity_beyond_the_task_is_a_failure():
    (outcome,) = toy_runner().run([job(lora((1,)), n=41)])
    assert "asks for 41 training examples, but the task toy has 40" in outcome.failure.message


def test_jobs_of_different_fidelity_run_in_cohorts_of_their_own():
    jobs = [job(lora((1,)), n=n, epochs=epochs) for n, epochs in ((40, 1), (20, 2), (40, 1))]
    outcomes = toy_runner().run(jobs)
    assert [outcome.measurements[0].environment["cohort"] for outcome in outcomes] == [2, 1, 2]
    assert [outcome.curve[-1].step for outcome in outcomes] == [5, 6, 5]


def test_cohort_limit_is_kept():
    outcomes = toy_runner(cohort=2).run([job(lora((layer,))) for layer in (0, 1, 2)])
    assert sorted(outcome.measurements[0].environment["cohort"] for outcome in outcomes) == [1, 2, 2]


def test_state_reproduces_the_score():
    # Oracle: the state loaded into a fresh injection, through the plain forward pass of transformers.
    runner = toy_runner()
    configuration = CONFIGURATIONS["upper layers"]
    (outcome,) = runner.run([job(configuration, report=True)], keep_state=True)
    backbone = tiny_backbone("bert")
    texts = runner.task.report.texts
    batch = backbone.tokenizer(list(texts), padding=True, return_tensors="pt")
    with inject(backbone, [configuration], seeds=[99]) as injection:
        injection.load_state_dict(0, outcome.state)
        injection.begin_batch(0, training=False)
        logits = backbone.forward(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])
    assert logits.argmax(1).tolist() == list(outcome.measurements[1].predictions)


@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_regression_predicts_in_the_targets_unit(architecture):
    # Targets far from zero: a head that starts near zero cannot reach them without standardisation.
    task = toy_task(n_train=200, regression=True)
    splits = {
        name: dataclasses.replace(split, targets=1e5 + 2e4 * split.targets) for name, split in task.splits.items()
    }
    task = dataclasses.replace(task, **splits)
    runner = toy_runner(architecture, task)
    (outcome,) = runner.run([job(lora((0, 1, 2), rate=1e-2), n=200, epochs=6, report=True)], keep_state=True)
    predictions = outcome.measurements[1].predictions
    deviation = float(task.report.targets.std())
    errors = [abs(p - t) for p, t in zip(predictions, task.report.targets, strict=True)]
    assert sum(errors) / len(errors) < (1.0 if architecture == "bert" else 3.0) * deviation
    backbone = tiny_backbone(architecture, n_labels=1)
    batch = backbone.tokenizer(list(task.report.texts), padding=True, return_tensors="pt")
    with inject(backbone, [lora((0, 1, 2))], seeds=[99]) as injection:
        injection.load_state_dict(0, outcome.state)
        injection.begin_batch(0, training=False)
        outputs = backbone.forward(batch["input_ids"], batch["attention_mask"], batch.get("token_type_ids"))
    assert outputs[:, 0].tolist() == pytest.approx(list(predictions), rel=1e-3)


def test_full_disk_costs_the_cache_not_the_run(tmp_path, monkeypatch, caplog):
    def full(self, *arguments, **keywords):
        raise OSError(errno.ENOSPC, "No space left on device")

    (expected,) = toy_runner().run([job(lora((2,)))])
    runner = toy_runner(cache_dir=tmp_path, memory_cap_bytes=0)
    monkeypatch.setattr(Path, "open", full)
    with caplog.at_level(logging.WARNING, "autopeft.training"):
        (outcome,) = runner.run([job(lora((2,)))])
    assert "the disk is full" in caplog.text
    assert outcome.measurements[0].metrics == pytest.approx(expected.measurements[0].metrics)


def test_cache_fill_is_no_trials_time():
    runner = toy_runner()
    runner.run([job(lora((2,)))])
    filled = runner.cache_fill_time_s
    assert filled > 0
    runner.run([job(lora((1, 2)))])
    assert runner.cache_fill_time_s - filled < filled


def test_probe_and_estimate_are_positive_and_leave_no_trace():
    runner = toy_runner()
    (expected,) = runner.run([job(lora((0,)))])
    probe = runner.probe(lora((0,)), n_candidates=2)
    assert probe.train_s_per_example > 0
    assert probe.evaluation_s_per_example > 0
    fidelity = Fidelity(train_examples=40, epochs=2)
    assert runner.estimate(lora((0,)), fidelity) > 0
    assert numbers(runner.run([job(lora((0,)))])[0]) == numbers(expected)


def test_cohort_size_on_a_cpu_is_one():
    assert toy_runner().cohort_size(lora((0,))) == 1


def test_pairs_and_long_texts_are_cut_to_the_models_positions():
    runner = toy_runner(task=toy_task(pairs=True), settings=TrainingSettings(batch_size=8, max_tokens=4096))
    assert runner.split("train", lora((1,))).lengths.max() <= runner.backbone.max_positions
    assert runner.run([job(lora((1,)))])[0].failure is None


def uniform_prefix(length: int) -> Configuration:
    places = [(Site(layer=layer, part="attention"), ModuleSpec.make("prefix", length)) for layer in range(3)]
    return Configuration.make(places, learning_rate=1e-2)


def long_task():
    """Every text has more tokens than the tiny backbones have positions."""
    task = toy_task()
    longer = {
        name: dataclasses.replace(split, texts=tuple(" ".join([text] * 40) for text in split.texts))
        for name, split in task.splits.items()
    }
    return dataclasses.replace(task, **longer)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "gpt2", "llama"])
def test_texts_leave_room_for_the_positions_that_a_prefix_takes(architecture):
    runner = toy_runner(architecture, long_task(), settings=TrainingSettings(batch_size=8, max_tokens=4096))
    longest = runner.backbone.max_positions
    jobs = [job(configuration) for configuration in (uniform_prefix(10), uniform_prefix(3), lora((1,)))]
    alone = [numbers(toy_runner(architecture, long_task(), settings=runner.settings).run([one])[0]) for one in jobs]
    assert [numbers(outcome) for outcome in runner.run(jobs)] == alone
    for one, taken in zip(jobs, (10, 3, 0), strict=True):
        assert runner.split("search", one.configuration).lengths.max() == longest - taken


def test_prefix_that_leaves_no_room_for_text_fails_alone_and_says_why():
    runner = toy_runner(settings=TrainingSettings(batch_size=8, max_tokens=4096))
    for length in (63, 100):
        failed, passed = runner.run([job(uniform_prefix(length)), job(lora((1,)))])
        assert failed.failure.reason == "error"
        assert f"leaves {max(64 - length, 0)} of the 64" in failed.failure.message
        assert passed.failure is None


@pytest.mark.parametrize("field", ["seed", "splits"])
def test_impossible_job_is_refused(field):
    good = job(lora((1,)))
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(good, **{field: {"seed": -1, "splits": ("dev",)}[field]})
