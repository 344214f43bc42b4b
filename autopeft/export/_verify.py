"""Load an export as a stranger would, in a process of its own, and write down what it predicts.

Run by path, not as a module of the package: ``python _verify.py REQUEST``. Forms that stock libraries load are loaded
without autopeft being imported, and the answer says so.

The request is a JSON file: ``folder``, ``form`` (``"lora"``, ``"merged"``, ``"native"``, ``"own"``), ``base``,
``model_kwargs``, ``max_tokens``, ``device``, ``texts``, ``pairs`` (or null) and ``answer``, the file to write: logits
in safetensors, with the facts about the loading as metadata.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_ROWS = 32


def load_model(request: dict[str, Any]) -> Any:
    """The exported model, loaded by stock means; for autopeft's own form after importing its peft type."""
    import torch
    from transformers import AutoModelForSequenceClassification

    if request["form"] == "merged":
        trusted = {key: value for key, value in request["model_kwargs"].items() if key == "trust_remote_code"}
        return AutoModelForSequenceClassification.from_pretrained(  # a folder  # nosec B615
            request["folder"], dtype=torch.float32, **trusted
        )
    from peft import PeftModel

    if request["form"] == "own":
        import autopeft.export.peft_type  # noqa: F401
    kwargs = dict(request["model_kwargs"])
    if "id2label" in kwargs:
        # JSON has no integer keys.
        kwargs["id2label"] = {int(index): name for index, name in kwargs["id2label"].items()}
    base = AutoModelForSequenceClassification.from_pretrained(  # a folder  # nosec B615
        request["base"], dtype=torch.float32, **kwargs
    )
    return PeftModel.from_pretrained(base, request["folder"])


def predict(model: Any, tokenizer: Any, texts: list[str], pairs: list[str] | None, max_tokens: int) -> Any:
    """Logits of every text, shape (n, labels), through the tokenizer's own padding."""
    import torch

    # Batches of similar length waste little on padding.
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]) + (len(pairs[i]) if pairs else 0))
    result: Any = None
    for start in range(0, len(order), _ROWS):
        rows = order[start : start + _ROWS]
        inputs = tokenizer(
            [texts[i] for i in rows],
            None if pairs is None else [pairs[i] for i in rows],
            truncation=True,
            max_length=max_tokens,
            padding=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            logits = model(**inputs.to(model.device)).logits.float().cpu()
        if result is None:
            result = torch.empty(len(texts), logits.shape[1])
        result[rows] = logits
    return result


def main(path: str) -> None:
    """Answer a request."""
    from importlib import metadata

    from safetensors.torch import save_file
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    request = json.loads(Path(path).read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(request["folder"])  # a folder  # nosec B615
    model = load_model(request).to(request["device"]).eval()
    logits = predict(model, tokenizer, request["texts"], request["pairs"], request["max_tokens"])
    facts = {
        "autopeft_imported": "autopeft" in sys.modules,
        "versions": {name: metadata.version(name) for name in ("peft", "transformers", "torch", "safetensors")},
        "labels": {str(index): name for index, name in model.config.id2label.items()},
    }
    save_file({"logits": logits.contiguous()}, request["answer"], metadata={"facts": json.dumps(facts)})


if __name__ == "__main__":
    main(sys.argv[1])
