"""The script of the fresh process: it needs nothing of autopeft, and its order of texts does not matter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from safetensors import safe_open

from autopeft.export import _merged, _verify
from tests.export.trained import PAIRS, TEXTS, trained_model


def test_it_answers_with_logits_and_facts_and_without_autopeft(tmp_path: Path) -> None:
    """Oracle: the hooks in this process."""
    model = trained_model(tmp_path / "base", "gpt2", "lora")
    folder = tmp_path / "merged"
    _merged.write(model, folder)
    model.save_tokenizer(folder)
    answer = tmp_path / "answer.safetensors"
    request = {
        "folder": str(folder),
        "form": "merged",
        "base": model.base,
        "model_kwargs": model.model_kwargs,
        "max_tokens": model.max_tokens,
        "device": "cpu",
        "texts": TEXTS * 8,
        "pairs": PAIRS * 8,
        "answer": str(answer),
    }
    (tmp_path / "request.json").write_text(json.dumps(request))
    subprocess.run([sys.executable, "-P", str(_verify.__file__), str(tmp_path / "request.json")], check=True)
    with safe_open(answer, framework="pt") as file:
        facts = json.loads(file.metadata()["facts"])
        found = file.get_tensor("logits")
    torch.testing.assert_close(found, model.logits(TEXTS, PAIRS).repeat(8, 1), atol=1e-5, rtol=1e-5)
    assert facts["autopeft_imported"] is False
    assert facts["labels"] == {"0": "bad", "1": "fine", "2": "good"}
