"""docker-compose.yml as docker compose would read it: variables put in, files laid over each other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
BASE, GPU = ROOT / "docker-compose.yml", ROOT / "docker-compose.gpu.yaml"

_VARIABLE = re.compile(r"\$\$|\$\{(?P<name>\w+)(?:(?P<operator>:[-?])(?P<rest>[^}]*))?\}")


class MissingVariableError(Exception):
    """A variable that must be set is not; the message is what docker compose says."""


def read(path: Path, variables: Mapping[str, str]) -> dict[str, Any]:
    """A compose file with its variables replaced."""
    found: dict[str, Any] = _replaced(yaml.safe_load(path.read_text(encoding="utf-8")), variables)
    return found


def merged(base: Any, over: Any) -> Any:
    """Mappings are merged and everything else is replaced, which is all that our overlay needs."""
    if isinstance(base, dict) and isinstance(over, dict):
        return {key: merged(base.get(key), over[key]) if key in over else base[key] for key in {**base, **over}}
    return base if over is None else over


def _replaced(item: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(item, dict):
        return {key: _replaced(value, variables) for key, value in item.items()}
    if isinstance(item, list):
        return [_replaced(value, variables) for value in item]
    return _interpolate(item, variables) if isinstance(item, str) else item


def _interpolate(text: str, variables: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        found = variables.get(match["name"], "")
        if found or match["operator"] is None:
            return found
        if match["operator"] == ":?":
            raise MissingVariableError(f"required variable {match['name']} is missing a value: {match['rest']}")
        return match["rest"]

    return _VARIABLE.sub(value, text)
