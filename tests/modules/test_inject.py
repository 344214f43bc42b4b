"""Cohorts of candidates, selection, states and refusals. Oracle: each candidate alone."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from autopeft.configuration import Configuration, ModuleSpec, Site, parameter_count
from autopeft.exceptions import ConfigurationError
from autopeft.modules import MODULES, inject, site_key, uniform_prefix_length
from tests.modules.cases import (
    MIXED,
    batches,
    configuration,
    cut,
    disturb,
    each,
    injected,
    own_gradients,
    spec,
    together,
)
from tests.tiny import ARCHITECTURES, tiny_backbone, tiny_batch

N = len(MIXED)
SEEDS = tuple(range(40, 40 + N))
BATCHES = batches(N)


def run_alone(backbone, candidate, state, *, step, batch):
    """Logits and gradients of one candidate in an injection of its own, from the given values."""
    with inject(backbone, [MIXED[candidate]], seeds=[SEEDS[candidate]]) as injection:
        injection.load_state_dict(0, state)
        injection.begin_batch(step, training=True)
        logits = backbone.forward(**batch)
        logits.square().sum().backward()
        return logits.detach(), own_gradients(injection, 0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_eight_mixed_candidates_are_each_as_if_alone(backbone_of, architecture):
    backbone = backbone_of(architecture)
    with inject(backbone, MIXED, seeds=SEEDS) as injection:
        disturb(injection)
        states = [injection.state_dict(candidate) for candidate in range(N)]
    # The cohort runs in an injection of its own each time: only one injection may be in a backbone.
    for active in (tuple(range(N)), (0, 2, 3, 5, 7), (6, 1, 4), (2,)):
        results = cohort_results(backbone, states, active, step=3)
        for candidate, (block, mine) in results.items():
            alone, gradients = run_alone(backbone, candidate, states[candidate], step=3, batch=BATCHES[candidate])
            torch.testing.assert_close(block, alone, rtol=1e-4, atol=2e-5)
            assert mine.keys() == gradients.keys()
            for name, value in gradients.items():
                torch.testing.assert_close(cut(mine[name], value), value, rtol=1e-3, atol=1e-4, msg=name)
                rest = mine[name].clone()
                cut(rest, value).zero_()
                assert rest.abs().max() == 0, f"padding of {name} learns"


def cohort_results(backbone, states, active, *, step):
    """Logits and gradients of each active candidate of one cohort; the others' gradients must be zero."""
    with inject(backbone, MIXED, seeds=SEEDS) as injection:
        for candidate, state in enumerate(states):
            injection.load_state_dict(candidate, state)
        injection.select(active)
        injection.begin_batch(step, training=True)
        logits = backbone.forward(**together([BATCHES[candidate] for candidate in active]))
        logits.square().sum().backward()
        for item in injection.parameters:
            for row, owner in enumerate(item.candidates):
                if owner not in active and item.tensor.grad is not None:
                    assert item.tensor.grad[row].abs().max() == 0, item.name
        blocks = logits.detach().chunk(len(active))
        return {
            candidate: (block, own_gradients(injection, candidate))
            for candidate, block in zip(active, blocks, strict=True)
        }


def test_dropping_candidates_while_training_changes_nothing_for_the_others(bert):
    """Six optimizer steps; two candidates leave after two steps, three more after four."""
    schedule = [tuple(range(N))] * 2 + [(0, 1, 3, 4, 6, 7)] * 2 + [(1, 4, 6)] * 2
    targets = torch.tensor([0, 1, 2])
    with inject(bert, MIXED, seeds=SEEDS) as injection:
        optimizer = torch.optim.SGD([item.tensor for item in injection.parameters], lr=0.05)
        for step, active in enumerate(schedule):
            injection.select(active)
            injection.begin_batch(step, training=True)
            optimizer.zero_grad()
            logits = bert.forward(**together([BATCHES[candidate] for candidate in active]))
            F.cross_entropy(logits, targets.repeat(len(active)), reduction="sum").backward()
            optimizer.step()
        together_states = [injection.state_dict(candidate) for candidate in range(N)]
    for candidate in range(N):
        with inject(bert, [MIXED[candidate]], seeds=[SEEDS[candidate]]) as injection:
            optimizer = torch.optim.SGD([item.tensor for item in injection.parameters], lr=0.05)
            for step, active in enumerate(schedule):
                if candidate in active:
                    injection.begin_batch(step, training=True)
                    optimizer.zero_grad()
                    F.cross_entropy(bert.forward(**BATCHES[candidate]), targets, reduction="sum").backward()
                    optimizer.step()
            alone = injection.state_dict(0)
        assert alone.keys() == together_states[candidate].keys()
        for name, value in alone.items():
            torch.testing.assert_close(together_states[candidate][name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_initial_values_do_not_depend_on_companions(bert):
    with inject(bert, MIXED, seeds=SEEDS) as injection:
        states = [injection.state_dict(candidate) for candidate in range(N)]
    for candidate in range(N):
        with inject(bert, [MIXED[candidate]], seeds=[SEEDS[candidate]]) as injection:
            alone = injection.state_dict(0)
        assert alone.keys() == states[candidate].keys()
        assert all(torch.equal(alone[name], states[candidate][name]) for name in alone)


def test_seed_and_site_name_the_initial_values(bert):
    chosen = configuration(*each(range(2), ("q", "v"), lambda layer: spec("lora", 4)))
    with inject(bert, [chosen, chosen, chosen], seeds=[1, 2, 1]) as injection:
        first, second, third = (injection.state_dict(candidate) for candidate in range(3))
    a = [name for name in first if name.endswith(".A")]
    assert all(torch.equal(first[name], third[name]) for name in a)
    assert not any(torch.equal(first[name], second[name]) for name in a)
    values = [first[name] for name in a]
    assert not any(torch.equal(values[i], values[j]) for i in range(4) for j in range(i))


def test_heads_start_as_the_backbones_and_are_each_candidates_own(bert):
    with inject(bert, [configuration()] * 2, seeds=[0, 1]) as injection:
        initial = bert.head_state()
        for candidate in range(2):
            state = injection.state_dict(candidate)
            assert state.keys() == {f"head.{name}" for name in initial}
            assert all(torch.equal(state[f"head.{name}"], value) for name, value in initial.items())
        logits = bert.forward(**together([tiny_batch(), tiny_batch()]))
        logits[:4].sum().backward()
        assert all(item.tensor.grad[1].abs().max() == 0 for item in injection.parameters)
        assert all(item.tensor.grad[0].abs().max() > 0 for item in injection.parameters)


def test_without_heads_the_backbones_is_used(bert):
    batch = tiny_batch()
    plain = bert.forward(**batch)
    with inject(bert, [configuration((0, "q", spec("lora", 2)))], seeds=[0], train_head=False) as injection:
        assert all(name.startswith("layers.0.q.lora.") for name in injection.state_dict(0))
        assert torch.equal(bert.forward(**batch), plain)


def test_state_round_trip_between_cohorts(bert):
    """Values saved from a cohort give the same outputs alone, and in another place of another cohort."""
    batch = tiny_batch()
    with injected(bert, *MIXED, seeds=SEEDS) as injection:
        states = [injection.state_dict(candidate) for candidate in range(N)]
        blocks = bert.forward(**together([batch] * N)).chunk(N)
    order = (5, 2, 0)
    with inject(bert, [MIXED[candidate] for candidate in order], seeds=[0] * 3) as injection:
        for place, candidate in enumerate(order):
            injection.load_state_dict(place, states[candidate])
            again = injection.state_dict(place)
            assert all(torch.equal(again[name], value) for name, value in states[candidate].items())
        for block, candidate in zip(bert.forward(**together([batch] * 3)).chunk(3), order, strict=True):
            torch.testing.assert_close(block, blocks[candidate], rtol=1e-4, atol=1e-5)


def test_state_is_a_copy_on_the_cpu(bert):
    with inject(bert, [MIXED[0]], seeds=[0]) as injection:
        state = injection.state_dict(0)
        for value in state.values():
            value.fill_(9.0)
        assert all(value.max() < 9 for value in injection.state_dict(0).values())


def test_states_that_do_not_fit_are_refused(bert):
    with inject(bert, [configuration((0, "q", spec("lora", 2)))], seeds=[0]) as injection:
        state = injection.state_dict(0)
        name = "layers.0.q.lora.A"
        with pytest.raises(ConfigurationError, match=r"lacks 'layers\.0\.q\.lora\.A'"):
            injection.load_state_dict(0, {key: value for key, value in state.items() if key != name})
        with pytest.raises(ConfigurationError, match=r"layers\.0\.q\.lora\.A must have shape \(2, 32\).*\(3, 32\)"):
            injection.load_state_dict(0, {**state, name: torch.zeros(3, 32)})
        with pytest.raises(ConfigurationError, match=r"layers\.9\.q"):
            injection.load_state_dict(0, {**state, "layers.9.q.lora.A": torch.zeros(2, 32)})


@pytest.mark.parametrize("active", [(), (0, 0), (2,), (-1,)])
def test_impossible_selections_are_refused(bert, active):
    with (
        inject(bert, [configuration()] * 2, seeds=[0, 1]) as injection,
        pytest.raises(ConfigurationError, match="active candidates must be distinct"),
    ):
        injection.select(active)


def test_lowest_layer_follows_the_active_candidates(bert):
    chosen = [
        configuration((2, "q", spec("lora", 1))),
        configuration((1, "ffn", spec("serial_adapter", 1)), (2, "k", spec("ia3"))),
        configuration(),
        configuration((None, "embedding", spec("full"))),
    ]
    with inject(bert, chosen, seeds=range(4)) as injection:
        lowest = {}
        for active in ((0,), (1, 0), (2, 0), (2,), (3, 0)):
            injection.select(active)
            lowest[active] = injection.lowest_layer
    assert lowest == {(0,): 2, (1, 0): 1, (2, 0): 2, (2,): None, (3, 0): 0}


def test_names_are_unique_and_rows_have_owners(bert):
    same_site = [configuration((0, "ffn", spec("serial_adapter", 2, activation=name))) for name in ("relu", "gelu")]
    with inject(bert, [*MIXED, *same_site], seeds=range(N + 2)) as injection:
        names = [item.name for item in injection.parameters]
        assert len(set(names)) == len(names)
        for item in injection.parameters:
            assert len(item.candidates) == len(item.tensor)
            assert list(item.candidates) == sorted(set(item.candidates))


def test_removal_is_idempotent_and_restoring_brings_the_values_back(bert):
    batch = tiny_batch()
    plain = bert.forward(**batch)
    with injected(bert, MIXED[2]) as injection:
        trained = bert.forward(**batch)
        injection.remove()
        injection.remove()
        assert torch.equal(bert.forward(**batch), plain)
        injection.restore()
        injection.restore()
        assert torch.equal(bert.forward(**batch), trained)
    assert torch.equal(bert.forward(**batch), plain)


@pytest.mark.parametrize(
    ("placed", "message"),
    [
        ((0, "q", ModuleSpec.make("nonsense")), "unknown module type 'nonsense'. Known: bitfit, "),
        ((0, "ffn", spec("lora", 2)), "lora cannot stand at ffn; it can at down, gate"),
        ((7, "q", spec("lora", 2)), "layer 7 does not exist: the backbone has layers 0 to 2"),
        ((0, "q", spec("lora")), "lora needs a size, but got size=None"),
        ((0, "k", spec("ia3", 2)), "ia3 takes no size, but got size=2"),
        ((0, "q", spec("lora", 2, rank=3)), "lora has no option 'rank'. Known: dropout, "),
        ((0, "q", spec("lora", 2, dropout=1.0)), "option dropout must be a finite number >= 0 and < 1, but got 1.0"),
        ((0, "ffn", spec("serial_adapter", 2, activation="sine")), "activation must be one of gelu, relu, silu, tanh"),
    ],
)
def test_configurations_that_do_not_fit_leave_no_trace(bert, placed, message):
    batch = tiny_batch()
    plain = bert.forward(**batch)
    good = configuration(*each(range(3), ("attention",), lambda layer: spec("prefix", 2)))
    bad = configuration(placed, (2, "attention", spec("prefix", 2)))
    with pytest.raises(ConfigurationError, match=message):
        inject(bert, [good, bad], seeds=[0, 1])
    assert torch.equal(bert.forward(**batch), plain)
    assert bert.attention(0).config is bert.model.config


@pytest.mark.parametrize(("configurations", "seeds"), [([], []), ([configuration()], [1, 2])])
def test_seeds_and_configurations_come_in_pairs(bert, configurations, seeds):
    with pytest.raises(ConfigurationError, match="one seed per configuration"):
        inject(bert, configurations, seeds=seeds)


def test_site_keys():
    assert site_key(Site(layer=3, part="q")) == "layers.3.q"
    assert site_key(Site(layer=None, part="embedding")) == "embedding"


def test_uniform_prefix_length():
    uniform = configuration(*each(range(3), ("attention",), lambda layer: spec("prefix", 5)))
    assert uniform_prefix_length(uniform, 3) == 5
    assert uniform_prefix_length(uniform, 4) == 0


@st.composite
def any_configuration(draw):
    """Any mixture of types at any of their sites, on a three-layer backbone."""
    placed = {}
    for _ in range(draw(st.integers(0, 6))):
        kind = MODULES[draw(st.sampled_from(sorted(MODULES)))]
        part = draw(st.sampled_from(sorted(kind.parts)))
        site = Site(layer=None if part == "embedding" else draw(st.integers(0, 2)), part=part)
        placed[site, kind.name] = spec(kind.name, draw(st.integers(1, 6)) if kind.is_sized else None)
    for site, name in list(placed):
        if name == "layer_norm" and (site, "full") in placed:
            # The same weights cannot be trained twice; that this is refused is tested elsewhere.
            del placed[site, name]
    return Configuration.make([(site, module) for (site, _), module in placed.items()], learning_rate=1e-3)


@settings(max_examples=25, deadline=None)
@given(st.lists(any_configuration(), min_size=1, max_size=4), st.sampled_from(["bert", "gpt2", "llama"]))
def test_any_cohort_counts_computes_and_goes(configurations, architecture):
    """Counts are the closed form; each block equals the candidate alone; nothing stays behind."""
    backbone = _shared(architecture)
    batch = tiny_batch(2, 6)
    plain = backbone.forward(**batch)
    n = len(configurations)
    try:
        counts = [parameter_count(item, backbone.shapes, MODULES) for item in configurations]
    except ConfigurationError:
        # Some types refuse some sizes.
        assume(False)
    with inject(backbone, configurations, seeds=range(n)) as injection:
        for candidate in range(n):
            assert injection.candidate_parameter_count(candidate) == counts[candidate]
        blocks = backbone.forward(**together([batch] * n)).chunk(n)
    for candidate, item in enumerate(configurations):
        with inject(backbone, [item], seeds=[candidate]):
            torch.testing.assert_close(backbone.forward(**batch), blocks[candidate], rtol=1e-4, atol=1e-5)
    assert torch.equal(backbone.forward(**batch), plain)


_BACKBONES = {}


def _shared(architecture):
    if architecture not in _BACKBONES:
        _BACKBONES[architecture] = tiny_backbone(architecture, n_labels=3)
    return _BACKBONES[architecture]


def test_parts_are_the_states_values_as_the_optimizer_has_them() -> None:
    """Oracle: the state dict, whose linear weights may be transposed."""
    with inject(tiny_backbone("bert", n_labels=3), MIXED, seeds=range(len(MIXED))) as injection:
        for candidate in range(len(MIXED)):
            state = injection.state_dict(candidate)
            found = {name: tensor.detach()[part] for name, tensor, part in injection.parts(candidate)}
            assert found.keys() == state.keys()
            for name, value in found.items():
                assert value.shape == state[name].shape or value.shape == state[name].shape[::-1]
                assert torch.equal(value.sort(-1).values.flatten().sort().values, state[name].flatten().sort().values)
