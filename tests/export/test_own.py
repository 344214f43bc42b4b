"""The own form holds every configuration, and keeps the canonical one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from autopeft.configuration import Configuration
from autopeft.export import _own
from tests.export.trained import CONFIGURATIONS, configuration, trained_model


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_adapter_file_carries_the_configuration_and_every_tensor(tmp_path: Path, name: str) -> None:
    model = trained_model(tmp_path / "base", "bert", name)
    assert _own.reason_against(model.configuration, model.backbone, 32) is None
    _own.write(model, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["peft_type"] == "AUTOPEFT"
    assert Configuration.from_dict(config["configuration"]) == configuration(name)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert {key.removeprefix("base_model.autopeft_.") for key in tensors} == set(model.state)
