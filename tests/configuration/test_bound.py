import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopeft.configuration import BoundSpace, ModuleSpec, load_search_space, parse_budget, parse_search_space
from autopeft.exceptions import BudgetError, ConfigurationError, InfeasibleError
from autopeft.modules import MODULES
from tests.configuration.examples import FAMILIES_FILE, TYPES, bert_shapes, llama_shapes, patient

MINILM = bert_shapes()
SPACE_OF_FAMILIES = load_search_space(FAMILIES_FILE, TYPES)
ONE_PERCENT = parse_budget("1%", MINILM.parameters)


def bound(budget: int | None = ONE_PERCENT, name: str | Path = FAMILIES_FILE, shapes: Any = MINILM) -> BoundSpace:
    return BoundSpace(space=load_search_space(name, TYPES), shapes=shapes, module_types=TYPES, budget=budget)


SPACE = bound()
seeds = st.integers(0, 2**32 - 1)


def test_families_at_one_percent_is_mostly_distinct_and_feasible() -> None:
    """Raw draws, no rejection: at least 900 of 1,000 are feasible and differ in more than the learning rate alone."""
    rng = np.random.default_rng(0)
    points = [SPACE.draw(rng) for _ in range(1000)]
    feasible = [SPACE.compile(point) for point in points if SPACE.is_feasible(point)]
    assert len({item.fingerprint for item in feasible}) >= 900
    assert len({item.placements for item in feasible}) >= 800
    counts = [SPACE.parameter_count(item) for item in feasible]
    assert max(counts) <= ONE_PERCENT
    # Useful for a front: the costs span the budget instead of sticking to it.
    assert np.quantile(counts, 0.25) < 0.15 * ONE_PERCENT
    assert np.quantile(counts, 0.75) > 0.5 * ONE_PERCENT


def test_sample_gives_900_distinct_feasible_configurations() -> None:
    rng = np.random.default_rng(1)
    found = {SPACE.compile(SPACE.sample(rng)).fingerprint for _ in range(1000)}
    assert len(found) >= 900


def test_the_space_has_a_dozen_to_25_active_dimensions() -> None:
    assert len(SPACE.parameters) == 24
    rng = np.random.default_rng(2)
    n_active = [len(SPACE.draw(rng)) for _ in range(300)]
    assert 12 <= np.median(n_active) <= 20
    assert max(n_active) <= 25


def test_layer_gates_do_not_concentrate_at_half_the_layers() -> None:
    """Each number of tuned layers from 1 to 6 is drawn about a sixth of the time."""
    rng = np.random.default_rng(3)
    counts = np.zeros(7)
    for _ in range(1200):
        counts[len({item.site.layer for item in SPACE.compile(SPACE.sample(rng)).placements})] += 1
    assert counts[0] == 0
    assert counts[1:].min() > 120
    assert counts[1:].max() < 300


@patient
@given(seeds)
def test_samples_are_canonical_points_within_the_budget(seed: int) -> None:
    point = SPACE.sample(np.random.default_rng(seed))
    assert SPACE.contains(point)
    assert SPACE.canonical(point) == point
    assert SPACE.active(point) == tuple(point)
    configuration = SPACE.compile(point)
    assert 0 < SPACE.parameter_count(configuration) <= ONE_PERCENT
    assert point == SPACE.sample(np.random.default_rng(seed))


@patient
@given(seeds, seeds)
def test_inactive_dimensions_are_ignored(seed: int, other: int) -> None:
    """Filling inactive dimensions from another point changes neither point nor fingerprint; a fresh space agrees."""
    point = SPACE.sample(np.random.default_rng(seed))
    noise = SPACE._drawer.draw(np.random.default_rng(other))
    filled = {**noise, **point}
    assert SPACE.canonical(filled) == point
    assert SPACE.compile(filled) == SPACE.compile(point)
    fresh = bound().compile(dict(reversed(list(filled.items()))))
    assert fresh.fingerprint == SPACE.compile(point).fingerprint


def test_equal_configurations_have_equal_fingerprints() -> None:
    """At one learning rate and a tight budget many different points meet in few configurations."""
    tiny = bound(shapes=bert_shapes(n_layers=1, hidden=8, ffn=16, heads=2), budget=60)
    rng = np.random.default_rng(0)
    points = [{**tiny.sample(rng), "learning_rate": 1e-3} for _ in range(400)]
    by_fingerprint: dict[str, set[Any]] = {}
    for point in points:
        configuration = tiny.compile(point)
        by_fingerprint.setdefault(configuration.fingerprint, set()).add(configuration)
    assert {len(group) for group in by_fingerprint.values()} == {1}
    assert len(set().union(*by_fingerprint.values())) == len(by_fingerprint)
    n_points = len({tuple(sorted(point.items())) for point in points})
    assert 5 < len(by_fingerprint) < n_points / 5


def test_different_points_of_one_configuration_meet() -> None:
    """All layers by share or by bits, and any profile on a single layer, are the same configuration."""
    base = dict.fromkeys(("serial_adapter", "parallel_adapter", "prefix", "ia3", "bitfit"), False)
    lora = {**base, "lora": True, "lora_rank": 4, "lora_parts": "query_value", "learning_rate": 1e-3}
    bits = {f"layer_{index}": True for index in range(6)}
    shares = {**lora, "lora_profile": "flat", "layer_rule": "top", "top_share": 1.0}
    chosen = {**lora, "lora_profile": "flat", "layer_rule": "chosen", **bits}
    assert SPACE.compile(shares).fingerprint == SPACE.compile(chosen).fingerprint
    single = [
        SPACE.compile({**lora, "lora_profile": profile, "layer_rule": "top", "top_share": 0.1}).fingerprint
        for profile in ("flat", "increasing", "hourglass")
    ]
    assert len(set(single)) == 1


def test_numpy_values_compile_to_the_same_configuration() -> None:
    point = SPACE.sample(np.random.default_rng(5))
    arrays = {name: np.asarray(value)[()] if not isinstance(value, str) else value for name, value in point.items()}
    assert SPACE.compile(arrays).fingerprint == SPACE.compile(point).fingerprint
    assert all(type(value) in (bool, int, float, str) for value in SPACE.canonical(arrays).values())


def test_wrong_points_are_refused_with_every_reason() -> None:
    point = SPACE.sample(np.random.default_rng(6)) | {"lora": True, "lora_rank": 200, "lora_partz": "ffn"}
    point |= {"lora_parts": "everything", "lora_profile": "flat"}
    del point["learning_rate"]
    assert not SPACE.contains(point)
    with pytest.raises(ConfigurationError) as caught:
        SPACE.compile(point)
    for reason in (
        "unknown parameter 'lora_partz'",
        "lora_rank must be 1 to 64, log scale, but got 200",
        "lora_parts must be query_value, value_output, attention, ffn, all, but got 'everything'",
        "learning_rate is missing",
    ):
        assert reason in str(caught.value)


def test_budget_below_the_smallest_configuration_says_which_that_is() -> None:
    with pytest.raises(BudgetError) as caught:
        bound(500).check_budget()
    assert str(caught.value) == (
        "the budget of 500 parameters is smaller than the smallest configuration of search space families on this "
        "backbone: prefix 1 on attention of 5 needs 768 parameters; use --budget 768 or more."
    )
    bound(768).check_budget()
    bound(None).check_budget()
    with pytest.raises(BudgetError):
        bound(767).sample(np.random.default_rng(0))


def test_the_tightest_budget_can_still_be_sampled() -> None:
    tight = bound(768)
    rng = np.random.default_rng(0)
    points = [tight.sample(rng) for _ in range(5)]
    assert {tight.parameter_count(tight.compile(point)) for point in points} == {768}
    rejecting = bound(1536, "autopeft", bert_shapes(n_layers=12, hidden=768, ffn=3072))
    assert rejecting.parameter_count(rejecting.compile(rejecting.sample(rng))) == 1536


def test_a_space_without_a_site_on_the_backbone() -> None:
    definition = {
        "name": "biases",
        "description": "BitFit only.",
        "parameters": {"rate": {"type": "float", "low": 1e-3, "high": 1e-2}},
        "modules": {"bitfit": {"parts": ["bias"]}},
        "layers": "all",
        "learning_rate": "rate",
        "budget": "scale",
    }
    nothing = BoundSpace(
        space=parse_search_space(definition, TYPES), shapes=llama_shapes(), module_types=TYPES, budget=1000
    )
    with pytest.raises(InfeasibleError, match="no module with a site on a llama backbone"):
        nothing.check_budget()
    with pytest.raises(InfeasibleError):
        nothing.sample(np.random.default_rng(0))


@pytest.mark.parametrize("name", [FAMILIES_FILE, "autopeft"])
@pytest.mark.parametrize(
    "shapes",
    [MINILM, llama_shapes(), bert_shapes(n_layers=24, hidden=1024, ffn=4096)],
    ids=["minilm", "llama", "large"],
)
def test_every_space_binds_to_every_backbone(name: str, shapes: Any) -> None:
    space = bound(None, name, shapes)
    rng = np.random.default_rng(0)
    for _ in range(30):
        point = space.sample(rng)
        configuration = space.compile(point)
        assert space.parameter_count(configuration) > 0
        assert all(
            item.site.layer is not None and item.site.layer < shapes.n_layers for item in configuration.placements
        )
        assert math.isclose(configuration.learning_rate, float(point.get("learning_rate", 1e-3)), rel_tol=0.01)


def test_paper_space_has_15_dimensions_and_5446350_valid_points() -> None:
    """Oracle: the published count, 1330 * 4095 (arXiv 2301.12132).

    A point's stack of modules depends on the three sizes only, its layers on the bits only. Both factors are counted
    through the compiler, and so is that they do not interact.
    """
    space = bound(None, "autopeft", bert_shapes(n_layers=12, hidden=768, ffn=3072))
    assert len(space.parameters) == 15
    names = ("serial_halvings", "parallel_halvings", "prefix_halvings")
    sizes = [dict(zip(names, (a, b, c), strict=True)) for a in range(11) for b in range(11) for c in range(11)]
    masks = [{f"layer_{layer}": bool(mask >> layer & 1) for layer in range(12)} for mask in range(2**12)]

    stacks = {}
    for index, point in enumerate(sizes):
        if space.is_feasible({**point, **masks[1]}):
            placements = space.compile({**point, **masks[1]}).placements
            stacks[index] = frozenset((item.site.part, item.module) for item in placements)
    layers = {}
    for index, mask in enumerate(masks):
        if space.is_feasible({**sizes[0], **mask}):
            layers[index] = frozenset(item.site.layer for item in space.compile({**sizes[0], **mask}).placements)
    assert len(set(stacks.values())) == len(stacks) == 1330
    assert len(set(layers.values())) == len(layers) == 4095
    assert len(stacks) * len(layers) == 5_446_350

    rng = np.random.default_rng(0)
    for _ in range(300):
        i, j = int(rng.integers(len(sizes))), int(rng.integers(len(masks)))
        point = {**sizes[i], **masks[j]}
        assert space.is_feasible(point) == (i in stacks and j in layers)
        if space.is_feasible(point):
            found = {(item.site.layer, item.site.part, item.module) for item in space.compile(point).placements}
            assert found == {(layer, part, module) for layer in layers[j] for part, module in stacks[i]}


def test_paper_space_counted_out_on_two_layers() -> None:
    """Oracle: brute force, 1330 * (2^2 - 1) distinct configurations."""
    space = bound(None, "autopeft", bert_shapes(n_layers=2, hidden=768, ffn=3072))
    found = set()
    for index in range(11**3 * 4):
        k, mask = divmod(index, 4)
        point = {"serial_halvings": k // 121, "parallel_halvings": k // 11 % 11, "prefix_halvings": k % 11}
        point |= {"layer_0": bool(mask & 1), "layer_1": bool(mask & 2)}
        if space.is_feasible(point):
            found.add(space.compile(point).fingerprint)
    assert len(found) == 1330 * 3


def test_paper_space_sizes_and_options() -> None:
    space = bound(None, "autopeft", bert_shapes(n_layers=12, hidden=768, ffn=3072))
    base = {"parallel_halvings": 10, "prefix_halvings": 10, **{f"layer_{layer}": layer == 3 for layer in range(12)}}
    specs = [space.compile({**base, "serial_halvings": k}).placements[0].module for k in range(10)]
    assert [spec.size for spec in specs] == [768, 384, 192, 96, 48, 24, 12, 6, 3, 1]
    rules = {rule.type: dict(rule.fixed_options) for rule in space.space.modules}
    assert rules["serial_adapter"] == {"activation": "relu", "scale": 1.0}
    assert rules["parallel_adapter"] == {"activation": "relu", "scale": 4.0}
    parallel = space.compile({**base, "serial_halvings": 10, "parallel_halvings": 4}).placements[0].module
    assert parallel == ModuleSpec.make("parallel_adapter", 48)  # options that repeat the default are left out


@pytest.mark.parametrize("hidden", [384, 1024, 4096])
def test_paper_space_k_10_is_absent_for_every_hidden_size(hidden: int) -> None:
    space = bound(None, "autopeft", bert_shapes(n_layers=1, hidden=hidden, ffn=hidden))
    point = {"serial_halvings": 10, "parallel_halvings": 10, "prefix_halvings": 10, "layer_0": True}
    assert not space.is_feasible(point)


def test_compiled_points_are_remembered_only_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autopeft.configuration._bound._MAX_COMPILED", 3)
    space = bound()
    rng = np.random.default_rng(0)
    points = [space.sample(rng) for _ in range(8)]
    fresh = bound()
    assert [space.compile(point) for point in points] == [fresh.compile(point) for point in points]
    assert len(space._compiled) <= 3


def test_a_space_without_a_legal_point_says_what_is_wrong() -> None:
    """Factors that adapters share cannot have two sizes."""
    rule = {"size": 8, "parts": ["ffn"]}
    definition = {
        "name": "odd",
        "description": "Two groups of adapters that share factors of unequal shapes.",
        "parameters": {},
        "modules": {
            "upper": {"type": "compacter", **rule, "options": {"terms": 4}},
            "lower": {"type": "compacter", **rule, "parts": ["attention"], "options": {"terms": 2}},
        },
        "layers": "all",
        "learning_rate": 0.001,
        "budget": "reject",
    }
    # Read without module types, it cannot be found out any earlier.
    space = BoundSpace(space=parse_search_space(definition), shapes=MINILM, module_types=MODULES)
    with pytest.raises(InfeasibleError, match=r"odd has no legal point .* upper and lower: .*terms"):
        space.check_budget()
