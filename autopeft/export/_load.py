"""Loading an export again, whatever its form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from autopeft.backbones import BACKBONES, Backbone, load_backbone
from autopeft.exceptions import BackboneError, NotFoundError
from autopeft.export._folder import RECORD, read_record


def load(
    folder: Path | str,
    backbone: Any = None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
) -> Any:
    """Load what ``autopeft export`` wrote.

    Args:
        folder: The export.
        backbone: What it stands on: a registered name, a folder, a hub id, a `Backbone`, or a ready transformers model
            for sequence classification, which is changed in place. None takes what the export names. Merged weights
            need none.
        device: Where to put the model.
        dtype: Of its weights; a ready model keeps its own.
        allow_pickle: Load a backbone whose weights are not safetensors.
        trust_remote_code: Run code that comes with the backbone.

    Returns:
        A transformers model, or a `peft.PeftModel` around one, ready to predict; ``config.id2label`` names the classes.

    Raises:
        NotFoundError: If the folder holds no export.
        BackboneError: If the backbone is not the one the export was trained on.
    """
    path = Path(folder).expanduser()
    record = read_record(path)
    if record is None:
        raise NotFoundError(f"{path} holds no export of autopeft: there is no readable {RECORD}.")
    if record["form"] == "merged":
        from transformers import AutoModelForSequenceClassification

        merged = AutoModelForSequenceClassification.from_pretrained(  # a folder  # nosec B615
            path, dtype=dtype, local_files_only=True, trust_remote_code=trust_remote_code
        )
        return merged.to(device).eval()
    from peft import PeftModel

    import autopeft.export.peft_type  # noqa: F401  (registers the type)

    if backbone is None or isinstance(backbone, (str, Path)):
        backbone = _load_backbone(
            record, backbone, device=device, dtype=dtype, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code
        )
    if isinstance(backbone, Backbone):
        _check_hash(record, backbone, path)
    model = backbone.model if isinstance(backbone, Backbone) else backbone
    _check_labels(record, model, path)
    for name, value in _config_entries(record).items():
        setattr(model.config, name, value)
    return PeftModel.from_pretrained(model, str(path)).eval()


def _load_backbone(record: dict[str, Any], backbone: Path | str | None, **options: Any) -> Backbone:
    stored = record["backbone"]
    revision = None
    if backbone is None:
        is_known = stored["name"] in BACKBONES
        backbone = stored["name"] if is_known else stored["loaded_from"]
        revision = None if is_known or Path(backbone).is_dir() else stored.get("revision")
    n_labels = int(stored["model_kwargs"]["num_labels"])
    return load_backbone(str(backbone), n_labels=n_labels, revision=revision, **options)


def _check_hash(record: dict[str, Any], backbone: Backbone, folder: Path) -> None:
    expected = record["backbone"]["content_hash"]
    if backbone.content_hash != expected:
        raise BackboneError(
            f"the export in {folder} was trained on another backbone than {backbone.name}: its content hash is "
            f"{backbone.content_hash[:12]}, the export's is {expected[:12]} ({record['backbone']['source']})."
        )


def _check_labels(record: dict[str, Any], model: Any, folder: Path) -> None:
    expected = int(record["backbone"]["model_kwargs"]["num_labels"])
    if model.config.num_labels != expected:
        raise BackboneError(
            f"the export in {folder} has a head with {expected} outputs, but the model was loaded with "
            f"num_labels={model.config.num_labels}; pass num_labels={expected} to from_pretrained."
        )


def _config_entries(record: dict[str, Any]) -> dict[str, Any]:
    entries = {
        key: value
        for key, value in record["backbone"]["model_kwargs"].items()
        if key in ("id2label", "label2id", "pad_token_id")
    }
    if "id2label" in entries:
        entries["id2label"] = {int(index): name for index, name in entries["id2label"].items()}
    return entries
