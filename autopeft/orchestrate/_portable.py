"""What travels with a study, so that a worker on any machine can rebuild what trains its trials. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from autopeft.orchestrate._settings import EXECUTION, SearchSettings

#: Attribute of a study: what `settings_to_dict` gives.
SETTINGS = "settings"
#: Attribute of a study: what `package_versions` gave where it was begun.
VERSIONS = "versions"
#: Packages that numbers depend on, with how many parts of their versions must agree.
_PARTS = {"autopeft": 3, "torch": 2, "transformers": 2, "tokenizers": 2, "numpy": 1}


def settings_to_dict(settings: SearchSettings) -> dict[str, Any]:
    """Settings as JSON has them, without where trials run; ``folder`` is where relative paths start from."""
    data: dict[str, Any] = {}
    for item in fields(settings):
        value = getattr(settings, item.name)
        if item.name in EXECUTION:
            continue
        if isinstance(value, tuple):
            value = list(value)
        elif isinstance(value, Path):
            value = str(value)
        elif isinstance(value, Mapping):
            value = {key: dict(options) for key, options in value.items()}
        data[item.name] = value
    return {**data, "folder": str(Path.cwd())}


def settings_from_dict(data: Mapping[str, Any]) -> SearchSettings:
    """Inverse of `settings_to_dict`; settings of a newer version that this one does not know are left out."""
    known = {item.name for item in fields(SearchSettings)}
    given = {key: value for key, value in data.items() if key in known}
    for key in ("objectives", "constraints", "record", "text_columns"):
        if key in given:
            given[key] = tuple(given[key])
    if given.get("data_dir") is not None:
        given["data_dir"] = Path(given["data_dir"])
    return SearchSettings(**given)


def package_versions() -> dict[str, str]:
    """Versions of the packages that numbers depend on, as they are installed here."""
    found = {}
    for name in _PARTS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def version_problem(begun: Mapping[str, str], here: Mapping[str, str]) -> str | None:
    """Why a study's trials must not be trained by the packages that are here; None if they may.

    A build for another device (``2.13.0+cu128``) is the same version, and so are patches of other packages than ours.

    Args:
        begun: What the study was begun with.
        here: What is here.
    """
    wrong = [
        f"{name} {here.get(name, 'missing')} here, the study was begun with {begun[name]}"
        for name, parts in _PARTS.items()
        if name in begun and _release(begun[name], parts) != _release(here.get(name, ""), parts)
    ]
    return "; ".join(wrong) or None


def _release(text: str, parts: int) -> tuple[int, ...] | str:
    try:
        return (*Version(text).release, 0, 0)[:parts]
    except InvalidVersion:
        return text
