"""Stored forms lose nothing and are small; the oracle is the value itself, bit for bit."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopeft.configuration import Configuration, ModuleSpec, Site
from autopeft.store._codec import (
    decode_configuration,
    decode_curve,
    decode_predictions,
    encode_configuration,
    encode_curve,
    encode_predictions,
    normalized_measurement,
    to_json,
)
from tests.store.builders import make_measurement, make_point

OPTIONS = st.dictionaries(
    st.sampled_from(["dropout", "scale", "activation", "bias"]),
    st.booleans() | st.integers(0, 2) | st.floats(0, 2) | st.text(max_size=5),
    max_size=3,
)
PLACEMENTS = st.dictionaries(
    st.tuples(st.integers(0, 30), st.sampled_from(["q", "v", "ffn"]), st.sampled_from(["lora", "serial_adapter"])),
    st.tuples(st.none() | st.integers(1, 512), OPTIONS),
    max_size=6,
)


@given(placements=PLACEMENTS, learning_rate=st.floats(1e-300, 1e300))
def test_configurations_come_back_with_the_types_of_their_options(
    placements: dict[tuple[int, str, str], tuple[int | None, dict[str, bool | int | float | str]]],
    learning_rate: float,
) -> None:
    configuration = Configuration.make(
        [
            (Site(layer=layer, part=part), ModuleSpec.make(kind, size, **options))
            for (layer, part, kind), (size, options) in placements.items()
        ],
        learning_rate=learning_rate,
    )
    loaded = decode_configuration(encode_configuration(configuration))
    # repr tells True from 1 and 1 from 1.0, which == does not.
    assert repr(loaded) == repr(configuration)
    assert loaded.fingerprint == configuration.fingerprint
    assert loaded == Configuration.from_dict(configuration.to_dict())


@given(st.lists(st.floats(width=64), max_size=30))
def test_predictions_come_back_bit_for_bit(values: list[float]) -> None:
    loaded = decode_predictions(encode_predictions(values))
    assert loaded is not None
    assert [struct.pack("<d", value) for value in loaded] == [struct.pack("<d", value) for value in values]


@pytest.mark.parametrize("values", [(), (0.0, -0.0), (255.0, 256.0), (65535.0, 65536.0), (math.nan, math.inf), (1, 0)])
def test_predictions_at_the_edges(values: tuple[float, ...]) -> None:
    loaded = decode_predictions(encode_predictions(values))
    assert [struct.pack("<d", value) for value in loaded or ()] == [struct.pack("<d", value) for value in values]


def test_predictions_are_compact() -> None:
    rng = np.random.default_rng(0)
    classes = encode_predictions(tuple(rng.integers(0, 10, 1000).astype(float).tolist()))
    assert classes is not None
    assert len(classes) < 600  # ten classes hold log2(10) = 3.3 bits each: 415 bytes at best
    assert encode_predictions(None) is None
    assert decode_predictions(None) is None


def test_curves_come_back() -> None:
    curve = (make_point(1), make_point(2, loss=1 / 3))
    assert decode_curve(encode_curve(curve)) == curve


def test_numpy_numbers_count_as_numbers() -> None:
    assert to_json({"a": np.float32(0.5), "b": np.int64(3)}, "x") == '{"a":0.5,"b":3}'


@pytest.mark.parametrize("value", [np.zeros(2), {"a": {1, 2}}, float("nan"), np.float32("inf"), {(1, 2): 3}])
def test_what_json_cannot_say_is_refused_by_name(value: object) -> None:
    with pytest.raises(ValueError, match="the probe must be JSON-ready"):
        to_json(value, "the probe")


def test_endless_nesting_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="must be JSON-ready"):
        to_json(loop, "it")


def test_normalizing_changes_nothing_that_is_json_ready() -> None:
    assert normalized_measurement(make_measurement()) == make_measurement()
