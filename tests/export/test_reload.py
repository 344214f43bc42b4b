"""Judging what a fresh process found: tolerances, and every way to fail."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from autopeft.export import FORMS
from autopeft.export._reload import Reloaded, problems, reload
from tests.export.trained import trained_model

REFERENCE = torch.tensor([[1.0, -2.0], [0.5, 0.25]])
SCORES = {"accuracy": 0.8, "mse": 400.0}
FACTS = {"autopeft_imported": False}


def judge(logits: torch.Tensor | None, again: dict[str, float], form: str = "lora", **facts: object) -> list[str]:
    reloaded = Reloaded(logits=logits, facts={**FACTS, **facts}, error=None if logits is not None else "Boom")
    return problems(REFERENCE, reloaded, FORMS[form], SCORES, again)


def test_the_same_scores_and_outputs_to_rounding_are_fine() -> None:
    assert judge(REFERENCE + 0.0019, {"accuracy": 0.8009, "mse": 400.3}) == []


@pytest.mark.parametrize(
    ("logits", "again", "fragment"),
    [
        (REFERENCE, {"accuracy": 0.7985, "mse": 400.0}, "accuracy is 0.7985 instead of 0.8000"),
        (REFERENCE, {"accuracy": 0.8}, "mse is undefined"),
        (REFERENCE, {"accuracy": 0.8, "mse": 400.5}, "mse is 400.5000"),
        (REFERENCE + 0.0021, SCORES, "outputs differ"),
        (REFERENCE * float("nan"), SCORES, "outputs differ"),
        (REFERENCE[:, :1], SCORES, "1 outputs instead of 2"),
        (None, {}, "fresh process: Boom"),
    ],
)
def test_anything_else_is_a_problem(logits: torch.Tensor | None, again: dict[str, float], fragment: str) -> None:
    found = judge(logits, again)
    assert len(found) == 1
    assert fragment in found[0]


def test_only_the_own_form_may_import_autopeft() -> None:
    assert judge(REFERENCE, SCORES, "own", autopeft_imported=True) == []
    assert "stock libraries alone" in judge(REFERENCE, SCORES, "lora", autopeft_imported=True)[0]


def test_an_export_that_does_not_load_says_why(tmp_path: Path) -> None:
    model = trained_model(tmp_path / "base", "bert", "lora")
    (tmp_path / "empty").mkdir()
    found = reload(model, FORMS["lora"], tmp_path / "empty", ["a"], None)
    assert found.logits is None
    assert found.error is not None
    assert "tokenizer" in found.error
