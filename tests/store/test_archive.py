"""A study written to a file comes back equal; anything else is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autopeft.exceptions import UsageError
from autopeft.store import MemoryStore, archive_study, read_archive, restore_study
from autopeft.study import REPORT_SPLIT, Study, TrialKind, TrialState
from tests.store.builders import FAILURE, claimed, ended, make_draft, make_measurement, make_point, make_spec


def stored() -> Study:
    """Through a store, so that times and workers are set: a trial in every state and of every kind."""
    store = MemoryStore()
    store.create_study(make_spec())
    done = claimed(store, "s", rank=1)
    store.add_point("s", done.number, "w", make_point(3))
    measurements = [make_measurement(0.7), replace(make_measurement(0.6), split=REPORT_SPLIT, predictions=(0.25, -1.5))]
    store.complete_trial("s", done.number, "w", measurements)
    pruned = claimed(store, "s", rank=2)
    state = TrialState.PRUNED
    store.complete_trial("s", pruned.number, "w", [ended(make_measurement(0.5), state)], state)
    store.fail_trial("s", claimed(store, "s", rank=3).number, "w", FAILURE)
    claimed(store, "s", rank=4, kind=TrialKind.BASELINE, label="LoRA r=8")
    store.add_trial("s", make_draft(1, kind=TrialKind.CONFIRMATION, seed=5, parent=0))
    store.set_attribute("s", "summary", {"headline": "Größer", "recommended": None})
    store.set_note("s", 0, "suggestion", {"source": "model"})
    return store.load_study("s")


def test_a_study_comes_back_equal(tmp_path: Path) -> None:
    study = stored()
    assert {item.state for item in study.trials} == set(TrialState)
    path = tmp_path / "study.json"
    path.write_text(json.dumps(archive_study(study), allow_nan=False), encoding="utf-8")
    assert read_archive(path) == study


def test_an_empty_study_comes_back_empty() -> None:
    study = Study(spec=make_spec(), trials=())
    assert restore_study(archive_study(study), "it") == study


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("no json", "is no JSON: Expecting value"),
        ("", "is no JSON"),
        ("[1, 2]", "is JSON, but no study"),
        ('{"schema_version": 1, "trials": []}', "is JSON, but no study; write one with `autopeft db export"),
        (
            '{"format": "autopeft-study", "schema_version": 7}',
            "has schema version 7, but this autopeft reads version 1",
        ),
        ('{"format": "autopeft-study"}', "has schema version None"),
        ('{"format": "autopeft-study", "schema_version": 1}', "is a damaged study: KeyError: 'spec'"),
        ("[" * 100_000, "is no JSON"),
    ],
)
def test_what_is_no_study_is_refused_by_name(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"other\.json") as caught:
        read_archive(path)
    assert problem in str(caught.value)


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: None, lambda path: path.write_bytes(b"\xff\xfe\x00\x01")])
def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "other.json")
    with pytest.raises(UsageError, match=r"other\.json (cannot be read|is no JSON)"):
        read_archive(tmp_path / "other.json")


@pytest.mark.parametrize(
    "damage",
    [
        lambda document: document["trials"][0].pop("configuration"),
        lambda document: document["trials"][0].update(state="FINISHED"),
        lambda document: document["trials"][0]["measurements"][0].update(split="train"),
        lambda document: document["trials"][0]["measurements"][0]["metrics"].update(accuracy=float("nan")),
        lambda document: document.update(trials=3),
        lambda document: document["spec"].pop("objectives"),
        lambda document: document["spec"].update(colour="red"),
    ],
)
def test_a_damaged_study_is_refused(damage: Any) -> None:
    document = json.loads(json.dumps(archive_study(stored())))
    damage(document)
    with pytest.raises(UsageError, match="it is a damaged study"):
        restore_study(document, "it")
