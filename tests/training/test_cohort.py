"""A cohort gives each candidate what it gets alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from autopeft.configuration import Configuration, ModuleSpec, Site
from autopeft.exceptions import OutOfMemoryError
from autopeft.study import Rung
from autopeft.tasks import Split
from autopeft.training import TrainingSettings
from autopeft.training._batches import rung_rows
from autopeft.training._optimizer import FlatAdamW
from tests.training.toys import job, lora, toy_runner

_WITH_DROPOUT = ModuleSpec.make("lora", 4, dropout=0.3)


def on_layers(layers, part, spec, rate):
    return [(Site(layer=layer, part=part), spec) for layer in layers], rate


def mixed_jobs():
    """Eight candidates: other types, sizes, layers, learning rates, dropout, seeds."""
    groups = [
        [on_layers((0, 1, 2), "q", _WITH_DROPOUT, 5e-3)],
        [on_layers((2,), "v", ModuleSpec.make("lora", 1, dropout=0.1), 2e-2)],
        [on_layers((1, 2), "ffn", ModuleSpec.make("serial_adapter", 3), 1e-2)],
        [
            on_layers((0,), "ffn", ModuleSpec.make("serial_adapter", 2), 1e-2),
            on_layers((0,), "ffn", ModuleSpec.make("parallel_adapter", 5), 1e-2),
            on_layers((0, 1), "attention", ModuleSpec.make("prefix", 3), 1e-2),
        ],
        [on_layers((0, 1, 2), "attention", ModuleSpec.make("prefix", 2), 3e-2)],
        [on_layers((1,), part, ModuleSpec.make("ia3"), 5e-2) for part in ("k", "v", "down")],
        [on_layers((0, 2), "bias", ModuleSpec.make("bitfit"), 1e-2)],
        [on_layers((), "q", _WITH_DROPOUT, 1e-2)],
    ]
    configurations = [
        Configuration.make([pair for pairs, _ in group for pair in pairs], learning_rate=group[0][1])
        for group in groups
    ]
    return [job(configuration, seed=k % 3) for k, configuration in enumerate(configurations)]


@pytest.fixture
def norms(monkeypatch):
    """Gradient norms of every optimizer step, in order."""
    seen = []
    step = FlatAdamW.step

    def recorded(self, *arguments, **keywords):
        seen.append(step(self, *arguments, **keywords))
        return seen[-1]

    monkeypatch.setattr(FlatAdamW, "step", recorded)
    return seen


def assert_same_run(got, alone, **tolerance):
    tolerance = tolerance or {"rel": 2e-4, "abs": 2e-5}
    assert (got.failure is None, got.is_stopped_early) == (alone.failure is None, alone.is_stopped_early)
    assert [point.step for point in got.curve] == [point.step for point in alone.curve]
    for mine, its in zip(got.curve, alone.curve, strict=True):
        assert dict(mine.metrics) == pytest.approx(dict(its.metrics), **tolerance)
    if got.state is not None:
        for name, tensor in alone.state.items():
            if name.endswith("bitfit.k"):
                # Attention does not feel a key's bias: its gradient is rounding noise, which Adam makes large.
                continue
            torch.testing.assert_close(got.state[name], tensor, rtol=1e-3, atol=2e-4)


def test_eight_mixed_candidates_train_as_if_alone(norms):
    # Oracle: each candidate trained by itself, float32.
    runner, jobs = toy_runner(), mixed_jobs()
    together = runner.run(jobs, keep_state=True)
    cohort_norms = torch.stack(norms)  # steps x k, in the order in which the runner arranged the cohort
    layers = [runner._first_layer(one.configuration) for one in jobs]
    order = sorted(range(len(jobs)), key=lambda k: (-layers[k], k))
    assert cohort_norms.shape == (10, 8)
    for k, one in enumerate(jobs):
        norms.clear()
        (alone,) = runner.run([one], keep_state=True)
        assert_same_run(together[k], alone)
        torch.testing.assert_close(cohort_norms[:, order.index(k)], torch.cat(norms), rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "distilbert"])
def test_other_architectures_train_as_if_alone(architecture):
    runner = toy_runner(architecture)
    jobs = [job(lora((0, 2))), job(lora((1,), rank=5, rate=2e-2), seed=1), job(lora((2,), parts=("o", "down")))]
    for together, one in zip(runner.run(jobs), jobs, strict=True):
        assert_same_run(together, runner.run([one])[0])


def test_early_stop_of_one_changes_nothing_for_the_others():
    runner, jobs = toy_runner(), mixed_jobs()
    stopped = {1, 4, 6}

    def stop(k, point):
        return k in stopped and point.step >= 5

    together = runner.run(jobs, on_point=stop)
    for k, one in enumerate(jobs):
        (alone,) = runner.run([one], on_point=lambda _, point, k=k: stop(k, point))
        assert together[k].is_stopped_early == (k in stopped)
        assert len(together[k].curve) == (1 if k in stopped else 2)
        assert_same_run(together[k], alone)


def test_rungs_are_points_of_the_curve_on_part_of_the_split():
    """Oracle: the same run without rungs, and the score of the same examples alone."""
    settings = TrainingSettings(batch_size=8, rungs=(0.1, 0.3, 0.5), rung_examples=10)
    (plain,) = toy_runner().run([job(lora((1,)), epochs=2)])
    runner = toy_runner(settings=settings)
    (outcome,) = runner.run([job(lora((1,)), epochs=2)])
    # Ten steps: the last rung is the end of the first epoch, which is scored whole.
    assert [(point.step, point.n_examples) for point in outcome.curve] == [(1, 10), (3, 10), (5, None), (10, None)]
    assert [dict(point.metrics) for point in outcome.curve[3:]] == [dict(point.metrics) for point in plain.curve[1:]]
    assert outcome.curve[2].metrics["accuracy"] == plain.curve[0].metrics["accuracy"]
    rows = rung_rows(24, 10)
    search = Split(
        texts=tuple(runner.task.search.texts[row] for row in rows), pairs=None, targets=runner.task.search.targets[rows]
    )
    part = toy_runner(task=replace(runner.task, search=search), settings=replace(settings, rung_examples=None))
    (alone,) = part.run([job(lora((1,)), epochs=2)])
    assert [point.metrics for point in alone.curve[:2]] == [point.metrics for point in outcome.curve[:2]]


def test_only_those_that_may_be_stopped_pay_for_rungs():
    """Oracle: each kind of job by itself."""
    runner = toy_runner(settings=TrainingSettings(batch_size=8, rungs=(0.3,), rung_examples=10))
    jobs = [job(lora((1,))), replace(job(lora((2,))), measures_rungs=False)]
    together = runner.run(jobs)
    assert [[point.step for point in outcome.curve] for outcome in together] == [[3, 5, 10], [5, 10]]
    for outcome, one in zip(together, jobs, strict=True):
        (alone,) = runner.run([one])
        assert [dict(point.metrics) for point in outcome.curve] == [dict(point.metrics) for point in alone.curve]


def test_stopped_run_stands_at_its_rung():
    (outcome,) = toy_runner().run([job(lora((1,)), epochs=3)], on_point=lambda _, point: point.epoch >= 2)
    assert outcome.is_stopped_early
    assert (outcome.measurements[0].fidelity.epochs, outcome.measurements[0].rung) == (3, Rung(step=10, n_steps=15))
    settings = TrainingSettings(batch_size=8, rungs=(0.3,), rung_examples=10)
    (outcome,) = toy_runner(settings=settings).run([job(lora((1,)))], on_point=lambda *_: True)
    assert outcome.measurements[0].rung == Rung(step=3, n_steps=10, n_examples=10)
    assert outcome.measurements[0].metrics["accuracy"] == outcome.curve[0].metrics["accuracy"]


def test_divergence_of_one_is_its_own_failure():
    runner = toy_runner()
    jobs = mixed_jobs()
    jobs[2] = job(lora((0, 1, 2), rate=1e30))
    together = runner.run(jobs)
    assert together[2].failure.reason == "divergence"
    assert "Training diverged by step" in together[2].failure.message
    assert together[2].measurements == ()
    for k in set(range(8)) - {2}:
        assert_same_run(together[k], runner.run([jobs[k]])[0])


def test_divergence_that_only_the_evaluation_shows_is_a_failure():
    # One step whose loss is still finite; the parameters it leaves are not.
    settings = TrainingSettings(batch_size=64, warmup_share=0.0, max_grad_norm=None)
    (outcome,) = toy_runner(settings=settings).run([job(lora((0, 1, 2), rate=1e38), epochs=1)])
    assert outcome.failure.reason == "divergence"
    assert "outputs are not finite" in outcome.failure.message


def limit_memory(monkeypatch, runner, n_rows, error):
    """Let forward passes with more rows than this run out of memory; returns the sizes of those that ran."""
    sizes = []
    forward = type(runner.backbone).forward

    def limited(self, input_ids, *arguments, **keywords):
        if len(input_ids) > n_rows:
            raise error
        sizes.append(len(input_ids))
        return forward(self, input_ids, *arguments, **keywords)

    monkeypatch.setattr(type(runner.backbone), "forward", limited)
    return sizes


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
    ids=["gpu", "cpu"],
)
def test_micro_batches_give_the_same_update(monkeypatch, error):
    # Oracle: the same run with enough memory, dropout included.
    runner = toy_runner()
    dropped = Configuration.make([(Site(layer=layer, part="q"), _WITH_DROPOUT) for layer in (0, 2)], learning_rate=1e-2)
    (expected,) = runner.run([job(dropped)], keep_state=True)
    sizes = limit_memory(monkeypatch, runner, 2, error)
    (got,) = runner.run([job(dropped)], keep_state=True)
    assert max(sizes) == 2
    assert_same_run(got, expected)


def test_second_shortage_is_a_failure_and_the_next_trial_runs(monkeypatch):
    runner = toy_runner()
    with monkeypatch.context() as patch:
        limit_memory(patch, runner, 1, torch.OutOfMemoryError("CUDA out of memory."))
        (outcome,) = runner.run([job(lora((0,)))])
    assert outcome.failure.reason == "out_of_memory"
    assert "even micro-batches of 2 examples do not fit" in outcome.failure.message
    assert OutOfMemoryError.__name__ in outcome.failure.traceback
    assert runner.run([job(lora((0,)))])[0].failure is None


def test_cohort_too_large_for_memory_trains_in_parts(monkeypatch):
    # Micro-batches of 2 rows for 4 candidates are 8 rows; 4 fit, so that halves of the cohort train.
    runner = toy_runner()
    jobs = [job(lora((0,), rank=rank)) for rank in (1, 2, 3, 4)]
    expected = runner.run(jobs)
    points = []
    limit_memory(monkeypatch, runner, 4, torch.OutOfMemoryError("CUDA out of memory."))
    for got, alone in zip(
        runner.run(jobs, on_point=lambda k, point: points.append((k, point.step))), expected, strict=True
    ):
        assert_same_run(got, alone)
    assert sorted(points) == [(k, step) for k in range(4) for step in (5, 10)]


def test_evaluation_shrinks_its_batches_when_memory_is_short(monkeypatch):
    runner = toy_runner()
    (expected,) = runner.run([job(lora((0,)))])
    sizes = limit_memory(monkeypatch, runner, 9, torch.OutOfMemoryError("CUDA out of memory."))
    (got,) = runner.run([job(lora((0,)))])
    assert max(sizes) <= 9
    assert_same_run(got, expected)
