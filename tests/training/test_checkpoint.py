"""A run that was cut off and goes on gives the very numbers of one that was not. Oracle: the uninterrupted run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from autopeft.configuration import Configuration
from autopeft.training import TrainingSettings
from autopeft.training._checkpoint import Checkpoint, StaleCheckpointError, restore
from autopeft.training._checkpoints import CheckpointFolder
from tests.modules.cases import EVERYWHERE, MIXED, configuration, spec
from tests.modules.sparse_reference import WINDOW
from tests.training.dynamics.cases import EVERYWHERE as LORA_EVERYWHERE
from tests.training.dynamics.cases import full, moving
from tests.training.test_cohort import assert_same_run, mixed_jobs
from tests.training.toys import job, lora, toy_runner, toy_task

#: Fifteen steps; the first rung lies within the first epoch, the third is its end.
SETTINGS = TrainingSettings(
    batch_size=8, max_tokens=48, weight_decay=0.01, rungs=(0.1, 0.2, 1 / 3, 0.5), rung_examples=10
)
RUNGS = (2, 3, 5, 8)

REMEMBERING = {
    "dropout": lora((0, 1, 2), rank=4),
    "lora_pro": configuration(*((layer, "q", spec("lora", 3, gradient="pro")) for layer in range(3))),
    "sparse rigl": configuration((1, "q", spec("sparse", 2, redo="rigl", **WINDOW))),
    "sparse sm3": configuration(
        (1, "q", spec("sparse", 1, redo="sm3", **WINDOW)), (2, "q", spec("sparse", 1, nuclear=0.1))
    ),
    "sparse snip": configuration((1, "q", spec("sparse", 1, pick="snip", warmup=6))),
    "sparse once": configuration((1, "q", spec("sparse", 3, pick="smallest", redo="once"))),
    "lisa": moving(LORA_EVERYWHERE, "lisa", layers=1, interval=2),
    "hft": moving(full(), "hft", rounds=3),
    "ist": moving(LORA_EVERYWHERE, "ist", layers=1, interval=3, subsets=2),
    "early_pruning": moving(LORA_EVERYWHERE, "early_pruning", at=0.4, modules=0.3, ranks=0.3),
}


#: Where something is remembered, and where no longer.
CUTS = {"sparse rigl": (2, 5, 8), "sparse sm3": (2,), "sparse snip": (5,), "early_pruning": (2, 5, 8)}


class Cut(Exception):
    """The worker is lost."""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> CheckpointFolder:
    # Toys train faster than any file is written.
    monkeypatch.setattr(CheckpointFolder, "is_worth", lambda *_: True)
    monkeypatch.setattr("autopeft.training._checkpoints._ASSUMED_RATE", 1e30)
    made = CheckpointFolder(tmp_path / "checkpoints")
    made._rate = 1e30
    return made


def cut_and_go_on(jobs, step, folder, *, dtype=torch.float32, settings=SETTINGS):
    """Outcomes of runs that were cut off at the point after a step, and the points reported by each part."""

    def cut(index, point):
        before[index].append(point)
        if point.step > step:
            raise Cut

    before, behind, after = [], [], []
    for asked in jobs:
        before.append([])
        with pytest.raises(Cut):
            toy_runner(dtype=dtype, settings=settings, checkpoints=folder).run(
                [asked], on_point=lambda _, point: cut(-1, point)
            )
    runner = toy_runner(dtype=dtype, settings=settings, checkpoints=folder)
    outcomes = runner.run(
        jobs,
        on_point=lambda index, point: after.append((index, point.step)) and False,
        on_resume=lambda index, curve: behind.append((index, [point.step for point in curve])) and False,
        keep_state=True,
    )
    return outcomes, behind, after


def assert_equal_run(got, whole):
    """Bit for bit, times and memory apart."""
    assert [(p.step, dict(p.metrics), p.n_examples) for p in got.curve] == [
        (p.step, dict(p.metrics), p.n_examples) for p in whole.curve
    ]
    assert dict(got.measurements[0].metrics) == dict(whole.measurements[0].metrics)
    assert got.state.keys() == whole.state.keys()
    for name, tensor in whole.state.items():
        assert torch.equal(got.state[name], tensor), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("step", RUNGS[:-1])
def test_gone_on_equals_never_stopped(folder, step, dtype):
    asked = replace(mixed_jobs()[0], fidelity=job(lora((1,)), epochs=3).fidelity)  # LoRA with dropout
    (whole,) = toy_runner(dtype=dtype, settings=SETTINGS).run([asked], keep_state=True)
    (got,), behind, after = cut_and_go_on([asked], step, folder, dtype=dtype)
    assert_equal_run(got, whole)
    done = [rung for rung in (*RUNGS, 10, 15) if rung <= step]
    assert behind == [(0, done)]
    assert after == [(0, rung) for rung in (*RUNGS, 10, 15) if rung > step]


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERYWHERE)
def test_every_module_goes_on_as_if_never_stopped(folder, name):
    check_goes_on(EVERYWHERE[name], (5,), folder)


@pytest.mark.parametrize("name", REMEMBERING)
def test_what_remembers_its_steps_goes_on_as_if_never_stopped(folder, name):
    check_goes_on(REMEMBERING[name], CUTS.get(name, (8,)), folder)


def check_goes_on(found: Configuration, steps, folder):
    asked = job(found, seed=3, epochs=3)
    (whole,) = toy_runner(settings=SETTINGS).run([asked], keep_state=True)
    for step in steps:
        (got,), behind, _ = cut_and_go_on([asked], step, folder)
        assert behind[0][1][-1] == step
        assert_equal_run(got, whole)


def test_mixed_layer_goes_on_as_if_never_stopped(folder):
    asked = job(MIXED[0], epochs=3)
    (whole,) = toy_runner(settings=SETTINGS).run([asked], keep_state=True)
    (got,), _, _ = cut_and_go_on([asked], 3, folder)
    assert_equal_run(got, whole)


def test_regression_goes_on_as_if_never_stopped(folder):
    task = toy_task(regression=True)
    asked = job(lora((0, 2)), epochs=3)
    (whole,) = toy_runner(task=task, settings=SETTINGS).run([asked], keep_state=True)

    def cut(_, point):
        if point.step > 3:
            raise Cut

    with pytest.raises(Cut):
        toy_runner(task=task, settings=SETTINGS, checkpoints=folder).run([asked], on_point=cut)
    (got,) = toy_runner(task=task, settings=SETTINGS, checkpoints=folder).run([asked], keep_state=True)
    assert_equal_run(got, whole)


def test_a_cohort_goes_on_from_runs_that_trained_alone(folder):
    """Other companions, other padding: equal to rounding, as all cohorts are."""
    jobs = [replace(item, fidelity=job(lora((1,)), epochs=3).fidelity) for item in mixed_jobs()[:3]]
    jobs += [job(moving(LORA_EVERYWHERE, "early_pruning", at=0.4, modules=0.3, ranks=0.3), seed=4, epochs=3)]
    got, behind, after = cut_and_go_on(jobs, 3, folder)
    assert sorted(behind) == [(k, [2, 3]) for k in range(len(jobs))]
    assert {step for _, step in after} == {5, 8, 10, 15}
    for one, outcome in zip(jobs, got, strict=True):
        (alone,) = toy_runner(settings=SETTINGS).run([one], keep_state=True)
        assert_same_run(outcome, alone)


def test_times_and_counts_go_on(folder):
    asked = job(lora((0, 1)), epochs=3)
    seen = []

    def cut(_, point):
        seen.append(point)
        if point.step > 5:
            raise Cut

    with pytest.raises(Cut):
        toy_runner(settings=SETTINGS, checkpoints=folder).run([asked], on_point=cut)
    (got,) = toy_runner(settings=SETTINGS, checkpoints=folder).run([asked])
    assert got.curve[:3] == tuple(seen[:3])
    times = [point.wall_time_s for point in got.curve]
    assert times == sorted(times)
    assert got.measurements[0].costs["wall_time_s"] == pytest.approx(times[-1])


def test_a_run_is_stopped_where_it_would_have_gone_on(folder):
    asked = job(lora((0, 1)), epochs=3)
    (first,) = toy_runner(settings=SETTINGS, checkpoints=folder).run([asked], on_point=lambda _, p: p.step == 3)
    steps = []
    (again,) = toy_runner(settings=SETTINGS, checkpoints=folder).run(
        [asked], on_point=lambda _, point: steps.append(point.step), on_resume=lambda *_: True
    )
    assert steps == []
    assert again.is_stopped_early
    assert again.measurements[0].rung == first.measurements[0].rung
    assert again.curve == first.curve


def test_a_stopped_run_goes_on_to_the_numbers_of_one_that_was_not(folder):
    asked = job(lora((0, 1)), epochs=3)
    (whole,) = toy_runner(settings=SETTINGS).run([asked], keep_state=True)
    for stop in (2, 8):
        (stopped,) = toy_runner(settings=SETTINGS, checkpoints=folder).run(
            [asked], on_point=lambda _, point, stop=stop: point.step == stop
        )
        assert stopped.measurements[0].rung.step == stop
    (got,) = toy_runner(settings=SETTINGS, checkpoints=folder).run([asked], keep_state=True)
    assert_equal_run(got, whole)
    assert list(folder.folder.iterdir()) == []


def test_what_the_numbers_depend_on_is_in_the_name(folder):
    asked = job(lora((0, 1)), epochs=3)
    toy_runner(settings=SETTINGS, checkpoints=folder).run([asked], on_point=lambda *_: True)
    others = [
        replace(asked, seed=1),
        replace(asked, configuration=lora((0, 1), rate=1e-4)),
        job(lora((0, 1)), epochs=4),
    ]
    behind = []
    for other in others:
        toy_runner(settings=SETTINGS, checkpoints=folder).run([other], on_resume=lambda *_: behind.append(1))
    runner = toy_runner(settings=replace(SETTINGS, weight_decay=0.1), checkpoints=folder)
    runner.run([asked], on_resume=lambda *_: behind.append(1))
    assert behind == []


def test_checkpoint_of_something_else_is_refused_and_the_run_begins_again(folder, caplog):
    asked = job(lora((0, 1)), epochs=3)
    (whole,) = toy_runner(settings=SETTINGS).run([asked], keep_state=True)
    toy_runner(settings=SETTINGS, checkpoints=folder).run([job(lora((0,)), epochs=3)], on_point=lambda *_: True)
    (file,) = folder.folder.iterdir()
    runner = toy_runner(settings=SETTINGS, checkpoints=folder)
    file.rename(folder._path(runner._checkpoint_key(asked)))
    (got,) = runner.run([asked], keep_state=True)
    assert_equal_run(got, whole)
    assert "does not fit its configuration" in caplog.text
    assert list(folder.folder.iterdir()) == []


def test_another_shape_is_named():
    runner = toy_runner(settings=SETTINGS)
    nothing = {"tensors": {}, "moments": {}, "row_updates": [], "modules": [], "dynamics": {}}
    checkpoint = Checkpoint(step=1, curve=(), counters={}, peak_memory_bytes=None, **nothing)
    with (
        runner._injected(_candidates(lora((0,))), lambda *_: False, store_states=False) as setup,
        pytest.raises(StaleCheckpointError, match="does not fit its configuration: 'layers"),
    ):
        restore(checkpoint, 0, setup.injection, setup.cohort._optimizer, None)


def _candidates(found):
    from autopeft.training._cohort import Candidate

    return [Candidate(job=job(found))]
