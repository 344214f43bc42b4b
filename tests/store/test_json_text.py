"""JSON objects that stay text."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopeft.store._json_text import JsonText, read_object, shared_text

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=5))
def test_it_is_the_mapping_that_it_stands_for(value: dict[str, object]) -> None:
    text = json.dumps(value)
    found = JsonText(text)
    assert found == value == read_object(text)
    assert value == found
    assert dict(found) == {**found} == value
    assert list(found.items()) == list(value.items())
    assert (list(found), list(found.values()), len(found)) == (list(value), list(value.values()), len(value))
    assert repr(found) == repr(value)
    assert found == JsonText(json.dumps(value, indent=1))
    assert pickle.loads(pickle.dumps(found)) == value
    assert all(found[key] == value[key] and key in found for key in value)
    assert found.get("no such key") is None


def test_it_differs_from_others() -> None:
    assert JsonText('{"a": 1}') != JsonText('{"a": 2}')
    assert JsonText('{"a": 1}') != {"a": 2}
    assert JsonText("{}") != []
    with pytest.raises(TypeError, match="not hashable"):
        hash(JsonText("{}"))
    with pytest.raises(KeyError):
        JsonText("{}")["a"]


def test_what_is_read_is_a_copy() -> None:
    text = JsonText('{"a": [1]}')
    text["a"].append(2)
    assert text == {"a": [1]}


def test_what_many_rows_have_in_common_is_held_once() -> None:
    assert shared_text('{"device": "cpu"}') is shared_text('{"device": "cpu"}')
    one, other = (read_object(json.dumps({"a profile": "an hourglass"})) for _ in range(2))
    for a, b in zip(one.items(), other.items(), strict=True):
        assert a[0] is b[0]
        assert a[1] is b[1]
