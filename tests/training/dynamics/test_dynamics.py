"""Dynamics in training. Oracles: slow references of what must be frozen when, and every candidate alone."""

from __future__ import annotations

import pytest
import torch

from autopeft.configuration import DYNAMICS_TYPES
from autopeft.training._dynamics import DYNAMICS
from tests.modules.cases import EVERYWHERE as EVERY_TYPE
from tests.training.dynamics.cases import EVERYWHERE, moving
from tests.training.dynamics.recorded import layers_of, watch
from tests.training.test_cohort import assert_same_run
from tests.training.toys import job, toy_runner


def test_every_declared_dynamics_is_carried_out_and_nothing_else():
    assert DYNAMICS.keys() == DYNAMICS_TYPES.keys()


def test_a_dynamics_that_never_freezes_is_static_training():
    """Oracle: the static run; the general update differs from the fused one by rounding."""
    runner = toy_runner()
    (static,) = runner.run([job(EVERYWHERE)], keep_state=True)
    for spec in [("lisa", {"layers": 3}), ("ist", {"layers": 9}), ("hft", {"share": 0.0})]:
        (got,) = runner.run([job(moving(EVERYWHERE, spec[0], **spec[1]))], keep_state=True)
        for name, value in static.state.items():
            torch.testing.assert_close(got.state[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(DYNAMICS))
def test_a_probe_of_a_moving_configuration(kind):
    """Of so few steps that early pruning decides after the first, which a probe repeats."""
    options = {"layers": 1, "interval": 2} if kind in ("lisa", "ist") else {}
    probe = toy_runner().probe(moving(EVERYWHERE, kind, **options))
    assert probe.train_s_per_example > 0


@pytest.mark.parametrize("name", sorted(EVERY_TYPE))
@pytest.mark.parametrize("kind", sorted(DYNAMICS))
def test_every_module_type_can_move(monkeypatch, name, kind):
    """Whatever is trained: a run ends well, and only what its dynamics lets learn is updated by the optimizer."""
    steps = watch(monkeypatch)
    options = {"layers": 1, "interval": 2} if kind in ("lisa", "ist") else {}
    (outcome,) = toy_runner().run([job(moving(EVERY_TYPE[name], kind, **options), epochs=1)], keep_state=True)
    assert outcome.failure is None, outcome.failure.traceback
    assert len(steps) == 5
    for step in steps if options else ():
        assert len(layers_of(step.changed())) <= 1
    assert any(not name.startswith("head.") for step in steps for name in step.changed())


def test_other_types_train_as_if_alone():
    # Oracle: each candidate trained by itself; types that route, share tensors between sites or choose entries.
    kinds = ["lisa", "early_pruning", "ist", "hft"]
    names = ["moe_lora", "dora", "compacter", "sparse", "parallel_adapter", "moe_lora", "compacter", "full"]
    options = {"lisa": {"layers": 1, "interval": 2}, "ist": {"layers": 1, "interval": 2}}
    jobs = [
        job(moving(EVERY_TYPE[name], kinds[i % 4], **options.get(kinds[i % 4], {})), seed=i, epochs=1)
        for i, name in enumerate(names)
    ]
    runner = toy_runner()
    for together, one in zip(runner.run(jobs, keep_state=True), jobs, strict=True):
        assert_same_run(together, runner.run([one], keep_state=True)[0])
