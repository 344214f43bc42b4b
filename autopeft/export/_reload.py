"""Starting the process that loads an export as a stranger would, and judging its answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

import autopeft
from autopeft.export import _verify
from autopeft.export._ladder import Form
from autopeft.export._trained import TrainedModel

#: 0.1 points of a metric between 0 and 1; for larger values, that share of them.
SCORE_TOLERANCE = 0.001
#: Outputs may differ by rounding, as a share of the largest (or of 1).
LOGIT_TOLERANCE = 0.001


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reloaded:
    """What the fresh process found.

    Args:
        logits: Outputs on the texts, shape (n, labels); None if it could not load the export.
        facts: Versions, labels, whether autopeft was imported.
        error: The last lines of what it said if it failed; None if it did not.
    """

    logits: Tensor | None
    facts: Mapping[str, Any]
    error: str | None


def reload(
    model: TrainedModel, form: Form, folder: Path, texts: Sequence[str], pairs: Sequence[str] | None
) -> Reloaded:
    """Load an export in a fresh process with stock libraries and predict texts.

    Args:
        model: What was exported.
        form: As what.
        folder: Where it is.
        texts: What to predict.
        pairs: Second texts, or None.
    """
    with tempfile.TemporaryDirectory(prefix="autopeft-verify-") as temporary:
        answer = Path(temporary) / "answer.safetensors"
        request = Path(temporary) / "request.json"
        content = {
            "folder": str(folder.resolve()),
            "form": form.name,
            "base": str(model.backbone.folder or model.base),
            "model_kwargs": model.model_kwargs,
            "max_tokens": model.max_tokens,
            "device": str(model.backbone.device),
            "texts": list(texts),
            "pairs": None if pairs is None else list(pairs),
            "answer": str(answer),
        }
        request.write_text(json.dumps(content), encoding="utf-8")
        # Warnings between other libraries do not decide whether an export is good.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
        if "autopeft" in form.needs:
            paths = [str(Path(autopeft.__file__).parents[1]), environment.get("PYTHONPATH", "")]
            environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        # -P: the folder of the script, which is autopeft's, is not searched for modules.
        done = subprocess.run(  # noqa: S603  # this interpreter, this package's script  # nosec B603
            [sys.executable, "-P", str(Path(_verify.__file__)), str(request)],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        if done.returncode != 0 or not answer.exists():
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            return Reloaded(logits=None, facts={}, error="\n".join(lines[-5:]))
        with safe_open(answer, framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
            return Reloaded(logits=file.get_tensor("logits").clone(), facts=facts, error=None)


def problems(
    reference: Tensor, reloaded: Reloaded, form: Form, scores: Mapping[str, float], again: Mapping[str, float]
) -> list[str]:
    """Why an export does not count as verified, one sentence each; empty if it does.

    Args:
        reference: Outputs of the trained model here, shape (n, labels).
        reloaded: From the fresh process.
        form: Form of the export.
        scores: Metrics of `reference`.
        again: Metrics of the reloaded outputs.
    """
    if reloaded.logits is None:
        return [f"it could not be loaded in a fresh process: {reloaded.error}"]
    found = []
    if reloaded.logits.shape != reference.shape:
        return [f"it has {reloaded.logits.shape[1]} outputs instead of {reference.shape[1]}"]
    difference = float((reloaded.logits - reference).abs().max())
    if not difference <= LOGIT_TOLERANCE * max(1.0, float(reference.abs().max())):
        found.append(f"its outputs differ by up to {difference:.3g}")
    for name, value in scores.items():
        other = again.get(name)
        if other is None or not abs(other - value) <= SCORE_TOLERANCE * max(1.0, abs(value)):
            found.append(f"its {name} is {'undefined' if other is None else f'{other:.4f}'} instead of {value:.4f}")
    if "autopeft" not in form.needs and reloaded.facts.get("autopeft_imported"):
        found.append("it was not loaded by stock libraries alone")
    return found
