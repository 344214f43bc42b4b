import dataclasses

import pytest

from autopeft.samplers import Source, Suggestion


def test_a_suggestion_knows_its_source() -> None:
    assert Suggestion(params={}, notes={"source": "model"}).source is Source.MODEL
    assert Suggestion(params={}).source is Source.RANDOM


def test_a_suggestion_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Suggestion(params={}).params = {}  # type: ignore[misc]


def test_sources_are_stored_by_value_and_keep_it() -> None:
    assert {item.value for item in Source} == {"initial", "model", "space_filling", "random"}
