import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopeft.configuration import PARTS, Configuration, ModuleSpec, Placement, Site, layer_ranges
from autopeft.exceptions import ConfigurationError
from tests.configuration.examples import patient

options = st.dictionaries(
    st.sampled_from(["scale", "dropout", "activation"]),
    st.one_of(st.booleans(), st.integers(-5, 5), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5)),
)
specs = st.builds(
    lambda kind, size, chosen: ModuleSpec.make(kind, size, **chosen),
    st.sampled_from(["lora", "prefix", "ia3"]),
    st.none() | st.integers(1, 512),
    options,
)
sites = st.builds(
    lambda part, layer: Site(part=part, layer=None if part == "embedding" else layer),
    st.sampled_from(PARTS),
    st.integers(0, 30),
)
pairs = st.lists(
    st.tuples(sites, specs), max_size=12, unique_by=lambda item: (item[0].part, item[0].layer, item[1].type)
)
rates = st.floats(1e-8, 10)


@patient
@given(pairs, rates, st.randoms(use_true_random=False))
def test_round_trip_and_order(items: list[Any], rate: float, random: Any) -> None:
    configuration = Configuration.make(items, learning_rate=rate)
    assert Configuration.from_dict(json.loads(json.dumps(configuration.to_dict()))) == configuration
    shuffled = list(items)
    random.shuffle(shuffled)
    again = Configuration.make(shuffled, learning_rate=rate)
    assert again == configuration
    assert again.fingerprint == configuration.fingerprint
    assert hash(again) == hash(configuration)


@patient
@given(pairs, pairs, rates)
def test_fingerprints_tell_configurations_apart(left: list[Any], right: list[Any], rate: float) -> None:
    one, other = (Configuration.make(items, learning_rate=rate) for items in (left, right))
    # JSON writes equal numbers of different type differently, so only this direction holds for all options.
    if one.fingerprint == other.fingerprint:
        assert one == other


@patient
@given(pairs, rates)
def test_properties(items: list[Any], rate: float) -> None:
    """Oracle: the pairs themselves."""
    configuration = Configuration.make(items, learning_rate=rate)
    layers = [0 if site.layer is None else site.layer for site, _ in items]
    assert configuration.lowest_layer == (min(layers) if layers else None)
    assert set(configuration.module_types) == {spec.type for _, spec in items}
    assert configuration.describe()


def test_fingerprint_does_not_depend_on_the_process() -> None:
    """Oracle: SHA-256 of the canonical JSON, written out by hand."""
    configuration = Configuration.make(
        [(Site(part="q", layer=0), ModuleSpec.make("lora", 8, scale=2.0))], learning_rate=1e-3
    )
    text = '{"learning_rate":0.001,"modules":[{"layer":0,"options":{"scale":2.0},"part":"q","size":8,"type":"lora"}]}'
    code = f"import hashlib; print(hashlib.sha256({text!r}.encode()).hexdigest()[:16])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert configuration.fingerprint == done.stdout.strip()


def test_describe() -> None:
    q, v = (Site(part=part, layer=layer) for part, layer in (("q", 3), ("v", 3)))
    configuration = Configuration.make(
        [
            (q, ModuleSpec.make("lora", 8)),
            (v, ModuleSpec.make("lora", 8)),
            (Site(part="attention", layer=5), ModuleSpec.make("prefix", 4)),
        ],
        learning_rate=2e-3,
    )
    assert configuration.describe() == "lora 8 on q,v of 3 + prefix 4 on attention of 5, lr 0.002"
    assert Configuration.make([], learning_rate=1e-2).describe() == "head only, lr 0.01"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Site(part="head", layer=0), "site part must be one of"),
        (lambda: Site(part="q", layer=None), "a layer index goes with every part but embedding"),
        (lambda: Site(part="embedding", layer=0), "a layer index goes with every part but embedding"),
        (lambda: Site(part="q", layer=-1), "`layer >= 0` must hold, but got -1"),
        (lambda: ModuleSpec.make("lora", 0), "`size >= 1` must hold, but got 0; leave the module out"),
        (lambda: ModuleSpec.make("lora", True), "`size >= 1` must hold, but got True"),
        (lambda: ModuleSpec(type="lora", options=(("b", 1), ("a", 1))), "options must be sorted and unique"),
        (lambda: Configuration(placements=(), learning_rate=0.0), "`learning_rate > 0` must hold, but got 0.0"),
        (lambda: Configuration(placements=(), learning_rate=float("nan")), "`learning_rate > 0` must hold"),
        (lambda: Configuration.from_dict({"modules": []}), "not a configuration"),
        (lambda: Configuration.from_dict({"modules": [{"layer": 0}], "learning_rate": 1}), "not a configuration"),
    ],
)
def test_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert message in str(caught.value)


def test_two_modules_of_a_type_at_a_site_are_refused() -> None:
    site = Site(part="q", layer=0)
    item = Placement(site=site, module=ModuleSpec.make("lora", 4))
    with pytest.raises(ConfigurationError, match="at most one module of a type at a site"):
        Configuration(placements=(item, item), learning_rate=1.0)
    with pytest.raises(ConfigurationError, match="at most one module of a type at a site"):
        Configuration.make([(site, ModuleSpec.make("lora", 4)), (site, ModuleSpec.make("lora", 8))], learning_rate=1.0)


def test_option_falls_back_to_the_default() -> None:
    spec = ModuleSpec.make("lora", 4, scale=1.0)
    assert spec.option("scale", 2.0) == 1.0
    assert spec.option("dropout", 0.1) == 0.1


@patient
@given(st.sets(st.integers(0, 40)))
def test_layer_ranges_can_be_read_back(layers: set[int]) -> None:
    found: set[int] = set()
    for run in layer_ranges(layers).split(","):
        if run:
            low, _, high = run.partition("-")
            found |= set(range(int(low), int(high or low) + 1))
    assert found == layers


def test_layer_ranges() -> None:
    assert layer_ranges((5, 0, 1, 2)) == "0-2,5"
