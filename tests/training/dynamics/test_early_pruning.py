from __future__ import annotations

import pytest
import torch

from autopeft.configuration import Configuration, ModuleSpec, Site
from autopeft.training._dynamics._control import split_name
from tests.training.dynamics.cases import EVERYWHERE, moving
from tests.training.dynamics.recorded import modules_of, watch
from tests.training.toys import job, toy_runner


@pytest.mark.parametrize(("modules", "ranks"), [(0.5, 0.5), (0.0, 0.7), (0.25, 0.0)])
def test_early_pruning_drops_what_mattered_least(monkeypatch, modules, ranks):
    """Oracle: importances summed up from the recorded values and gradients, sorted by hand."""
    steps = watch(monkeypatch)
    pairs = [(i.site, i.module) for i in EVERYWHERE.placements]
    pairs += [
        (Site(layer=1, part="ffn"), ModuleSpec.make("serial_adapter", 4)),
        (Site(layer=0, part="k"), ModuleSpec.make("ia3")),
    ]
    configuration = Configuration.make(pairs, learning_rate=5e-3)
    moved = moving(configuration, "early_pruning", at=0.4, modules=modules, ranks=ranks)
    (outcome,) = toy_runner().run([job(moved)], keep_state=True)
    names = [name for name, _ in steps[0].before if not name.startswith("head.")]
    importance = {
        name: sum((step.before[name, 0][0] * step.gradients[name, 0]).abs() for step in steps[:4]) for name in names
    }
    totals: dict[str, float] = {}
    for name in names:
        totals[split_name(name)[0]] = totals.get(split_name(name)[0], 0.0) + float(importance[name].sum())
    order = sorted(totals, key=totals.__getitem__)
    pruned = set(order[: int(modules * len(order))])
    units = []
    for key in totals.keys() - pruned:
        ranked = {"lora": ("A", "B"), "serial_adapter": ("down_weight", "down_bias", "up_weight"), "ia3": ()}
        own = [f"{key}.{name}" for name in ranked[key.split(".")[3]]]
        for rank in range(len(importance[own[0]]) if own else 0):
            units.append((sum(float(importance[name][rank].sum()) for name in own), own, rank))
    dropped = [(own, rank) for _, own, rank in sorted(units)[: int(ranks * len(units))]]
    n_left = sum(steps[0].before[name, 0][0].numel() for name in names if split_name(name)[0] not in pruned)
    for own, rank in dropped:
        n_left -= sum(steps[0].before[name, 0][0][rank].numel() for name in own)
    assert outcome.failure is None, outcome.failure.traceback
    assert outcome.curve[0].metrics["dynamics.trainable_parameters"] == n_left
    assert outcome.curve[-1].metrics["dynamics.trainable_parameters"] == n_left
    initial, last = steps[0].before, steps[-1].after
    for name in names:
        if split_name(name)[0] in pruned:
            assert torch.equal(last[name, 0][0], initial[name, 0][0])
    for own, rank in dropped:
        for name in own:
            assert torch.equal(last[name, 0][0][rank], initial[name, 0][0][rank])
            for one, two in zip(steps[4].before[name, 0], last[name, 0], strict=True):
                assert torch.equal(one[rank], two[rank])
    for step in steps[4:]:
        # A LoRA without any rank left has nothing to learn; an adapter still has its bias.
        empty = {key for key in totals if "lora" in key and sum(own[0].startswith(key) for own, _ in dropped) == 3}
        assert modules_of(step.changed()) == totals.keys() - pruned - empty
        for own, rank in ((own, rank) for _, own, rank in units if (own, rank) not in dropped):
            assert (
                any(not torch.equal(step.before[n, 0][0][rank], step.after[n, 0][0][rank]) for n in own)
                or step is steps[-1]
            )


def test_prefixes_are_not_pruned(monkeypatch):
    steps = watch(monkeypatch)
    pairs = [(Site(layer=layer, part="attention"), ModuleSpec.make("prefix", 3)) for layer in (0, 2)]
    configuration = Configuration.make(
        [
            *pairs,
            (Site(layer=1, part="q"), ModuleSpec.make("lora", 2)),
            (Site(layer=2, part="q"), ModuleSpec.make("lora", 2)),
        ],
        learning_rate=5e-3,
    )
    toy_runner().run([job(moving(configuration, "early_pruning", at=0.1, modules=0.9, ranks=0.9))])
    alive = modules_of(steps[-1].changed())
    assert {"layers.0.attention.prefix", "layers.2.attention.prefix"} < alive
    assert len(alive) == 3
