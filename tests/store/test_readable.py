from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopeft.exceptions import UsageError
from autopeft.store._readable import (
    check_study_name,
    is_readable,
    readable,
    readable_json,
    readable_spec,
    readable_trial,
)
from autopeft.study import Failure, Trial, TrialState
from tests.store.builders import make_draft, make_spec

#: Any text, halves of surrogate pairs included.
texts = st.text(st.characters(exclude_categories=()))


@given(texts)
def test_every_text_becomes_unicode_and_unicode_stays_what_it_is(text: str) -> None:
    """Oracle: the encoder."""
    found = readable(text)
    found.encode()
    try:
        text.encode()
    except UnicodeEncodeError:
        assert not is_readable(text)
        assert found != text
    else:
        assert is_readable(text)
        assert found is text


def test_a_half_is_shown_by_its_number() -> None:
    assert readable("caf\udce9 \U0001f600") == "caf\\udce9 \U0001f600"


@given(
    st.recursive(st.one_of(st.none(), st.integers(), texts), lambda item: st.dictionaries(texts, item), max_leaves=8)
)
def test_json_is_readable_whether_halves_are_escaped_or_not(value: object) -> None:
    for ascii_only in (True, False):
        found = readable_json(json.dumps(value, ensure_ascii=ascii_only))
        json.dumps(found, ensure_ascii=False).encode()
        assert found == readable(json.loads(json.dumps(value)))


def test_other_values_stay() -> None:
    value = {"a": [1, 2.5, None, True, ("x", "\udcff")]}
    assert readable(value) == {"a": [1, 2.5, None, True, ("x", "\\udcff")]}


def test_settings_and_trials() -> None:
    text = json.dumps({**make_spec("a\udcff").to_dict(), "task": {"name": "caf\udce9.csv"}})
    found = readable_spec(text)
    assert (found.name, found.task["name"]) == ("a\\udcff", "caf\\udce9.csv")
    failure = Failure(reason="error", message="no \udce9", traceback="at \udce9")
    trial = Trial(number=0, draft=make_draft(), state=TrialState.FAILED, failure=failure, notes={"a": "\udce9"})
    shown = readable_trial(trial)
    assert shown.failure == Failure(reason="error", message="no \\udce9", traceback="at \\udce9")
    assert shown.notes == {"a": "\\udce9"}
    assert readable_trial(Trial(number=0, draft=make_draft(), state=TrialState.WAITING)).failure is None


def test_a_name_must_be_unicode() -> None:
    check_study_name("Größe \U0001f600\x00")
    with pytest.raises(UsageError, match=r"'a\\udcff' has half a surrogate pair.*--study"):
        check_study_name("a\udcff")
