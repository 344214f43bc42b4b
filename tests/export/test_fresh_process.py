"""Every module type leaves in every exact form and is loaded elsewhere, in a process with stock libraries alone.

One process loads all exports of one kind: starting torch and transformers once per export would cost minutes. Its
script is written from the documentation of peft and transformers; `autopeft export` verifies with another.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import autopeft
import autopeft.export.peft_type
from autopeft.configuration import LINEAR_PARTS
from autopeft.export import FORMS
from autopeft.modules import MODULES
from tests.export import trained
from tests.export.test_ladder import write
from tests.export.trained import PAIRS, TEXTS, Pairs, at, everywhere, spec, trained_model

LAYERS = range(trained.N_LAYERS)
#: Methods that peft computes, each at one size, as a native adapter of peft's has it.
DELEGATED = ("loha", "lokr", "oft", "boft", "hra", "miss", "vera")

#: Each module type alone, at every kind of site that it has, with options that are not the defaults.
ALONE: Mapping[str, Pairs] = {
    "lora": everywhere(spec("lora", 3, scaling="rslora"), spec("lora", 1, init="pissa", scale=0.5)),
    "dora": everywhere(spec("dora", 3), spec("dora", 2, scale=0.5)),
    "moe_lora": everywhere(
        spec("moe_lora", 2, experts=3), spec("moe_lora", 1, experts=4, router="topp"), parts=("q", "v", "down")
    ),
    "mix_lora": [
        (at(i, "ffn"), spec("mix_lora", 2, experts=2 + i, router=("topk", "topp", "switch")[i])) for i in LAYERS
    ],
    "serial_adapter": [(at(i, part), spec("serial_adapter", 3 + i)) for i in LAYERS for part in ("attention", "ffn")],
    "parallel_adapter": [(at(i, "ffn"), spec("parallel_adapter", 3 + i, activation="gelu")) for i in LAYERS],
    "prefix": [(at(i, "attention"), spec("prefix", 3)) for i in LAYERS],
    "prompt_generator": [(at(i, "attention"), spec("prompt_generator", 3, length=1 + i)) for i in LAYERS],
    "soft_prompt": [(at(None, "embedding"), spec("soft_prompt", 3))],
    "ia3": everywhere(spec("ia3"), parts=("k", "v", "down")),
    "bitfit": [(at(i, "bias"), spec("bitfit")) for i in LAYERS],
    "layer_norm": [(at(i, "norm"), spec("layer_norm")) for i in LAYERS],
    "ssf": everywhere(spec("ssf"), parts=LINEAR_PARTS),
    "mosa": [(at(i, "ffn"), spec("mosa", 6, splits=3)) for i in LAYERS],
    "compacter": [(at(i, part), spec("compacter", 8, rank=2)) for i in LAYERS for part in ("attention", "ffn")],
    "full": [(at(None, "embedding"), spec("full")), *everywhere(spec("full"), parts=("q", "up", "norm"))],
    "sparse": everywhere(spec("sparse", 2), spec("sparse", 1, pick="gradient"), spec("sparse", 1, redo="rigl")),
    "columns": everywhere(spec("columns", 3), spec("columns", 1, scale=0.5)),
    "channels": [(at(i, part), spec("channels", 1)) for i in LAYERS for part in ("attention", "ffn")],
    **{name: everywhere(spec(name, 4), parts=("q", "v", "down")) for name in DELEGATED},
}

#: Loads the exports that a file lists, and writes their outputs beside it.
SCRIPT = """
import json, sys
listed = json.load(open(sys.argv[1]))
if listed["own"]:
    import autopeft.export.peft_type
import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

found = {}
for name, folder in listed["folders"].items():
    if name.endswith("merged"):
        model = AutoModelForSequenceClassification.from_pretrained(folder)
    else:
        kwargs = {**listed["kwargs"], "dtype": torch.float32}
        base = AutoModelForSequenceClassification.from_pretrained(listed["base"], **kwargs)
        model = PeftModel.from_pretrained(base, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(listed["texts"], listed["pairs"], truncation=True, padding=True, return_tensors="pt")
    with torch.no_grad():
        found[name] = model.eval()(**inputs).logits.contiguous()
    if not listed["own"]:
        assert "autopeft" not in sys.modules
save_file(found, sys.argv[2])
"""


def in_fresh_process(
    folders: Mapping[str, Path], base: Path, kwargs: Mapping[str, object], *, own: bool
) -> dict[str, Tensor]:
    """Outputs of exports by name, each loaded in one process that this one tells nothing but where they are."""
    request, answer = base.parent / f"request-{own}.json", base.parent / f"answer-{own}.safetensors"
    listed = {
        "own": own,
        "folders": {name: str(folder) for name, folder in folders.items()},
        "base": str(base),
        # JSON has no integer keys; the names of the labels do not change the outputs.
        "kwargs": {name: value for name, value in kwargs.items() if name not in ("id2label", "label2id")},
        "texts": TEXTS,
        "pairs": PAIRS,
    }
    request.write_text(json.dumps(listed))
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONWARNINGS")}
    if own:
        environment["PYTHONPATH"] = str(Path(autopeft.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT, str(request), str(answer)],
        cwd=base.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(answer)


def test_every_module_type_is_here() -> None:
    assert set(ALONE) == set(MODULES)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_every_type_in_every_exact_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str) -> None:
    """Oracle: the hooks of the search. Every type leaves at least as its export class says, and always as our own."""
    for name, pairs in ALONE.items():
        monkeypatch.setitem(trained.CONFIGURATIONS, name, pairs)
    base = tmp_path / "base"
    untrained = trained_model(base, architecture, "head only").logits(TEXTS, PAIRS)
    expected: dict[str, Tensor] = {}
    folders: dict[str, Path] = {}
    for name in ALONE:
        model = trained_model(base, architecture, name)
        forms = [
            form for form, item in FORMS.items() if item.reason_against(model.configuration, model.backbone, 32) is None
        ]
        assert "own" in forms
        promised = {"merge": "merged"}.get(MODULES[name].export_class, MODULES[name].export_class)
        # Llama's linears have no bias to add a shift to.
        assert promised in forms or (name, architecture) == ("ssf", "llama")
        outputs = model.logits(TEXTS, PAIRS)
        assert name == "bitfit" or (outputs - untrained).abs().max() > 0.01, f"{name} must matter"
        for form in forms:
            folders[f"{name} {form}"] = write(model, form, tmp_path / f"{name}-{form}")
            expected[f"{name} {form}"] = outputs
    stock = {name: folder for name, folder in folders.items() if not name.endswith(" own")}
    found = in_fresh_process(stock, base, model.model_kwargs, own=False)
    found |= in_fresh_process(
        {name: folder for name, folder in folders.items() if name not in stock}, base, model.model_kwargs, own=True
    )
    assert found.keys() == expected.keys()
    for name, outputs in expected.items():
        torch.testing.assert_close(
            found[name], outputs, atol=2e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
