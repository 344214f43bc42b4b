"""What a selection does when rows come, go and move; the widget itself is tested in the browser."""

from __future__ import annotations

from typing import Any

import pytest
import streamlit as st

from dashboard.views import _table


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    found: dict[str, Any] = {}
    monkeypatch.setattr(st, "session_state", found)
    return found


def select(state: dict[str, Any], *rows: int) -> None:
    state["t"] = {"selection": {"rows": list(rows), "columns": [], "cells": []}}


def test_a_selection_stays_with_its_trials(state: dict[str, Any]) -> None:
    assert _table._keep("t", [4, 7, 9]) == []
    select(state, 2, 0)
    assert _table._keep("t", [4, 7, 9, 10]) == [9, 4]
    assert state["t"]["selection"]["rows"] == [2, 0], "what is appended moves nothing"
    assert _table._keep("t", [1, 4, 9]) == [9, 4]
    assert state["t"]["selection"]["rows"] == [2, 1]
    assert _table._keep("t", [9]) == [9], "a trial that a filter takes away is not selected any more"
    assert state["t"]["selection"]["rows"] == [0]
    assert _table._keep("t", []) == []
    assert _table._keep("t", [4, 9]) == []


def test_rows_that_are_not_there_are_nobodys(state: dict[str, Any]) -> None:
    _table._keep("t", [4])
    select(state, 0, 5)
    assert _table._keep("t", [4]) == [4]


def test_the_last_selected_one_is_opened(state: dict[str, Any]) -> None:
    opened: list[int] = []
    _table._picked("t", opened.append)
    _table._keep("t", [4, 7, 9])
    select(state, 0, 2)
    _table._picked("t", opened.append)
    select(state)
    _table._picked("t", opened.append)
    assert opened == [9]
