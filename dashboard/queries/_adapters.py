"""Adapters that `autopeft export --publish` has stored where machines share files."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from typing import Any

from autopeft.artifacts import ArtifactStore, check_name, study_folder
from autopeft.exceptions import ArtifactError, NotFoundError

#: Name of an export's own record in its folder.
_RECORD = "autopeft.json"
_MAX_RECORD_BYTES = 2**20
#: Largest adapter that is sent through the browser, in bytes; merged weights of large models are fetched elsewhere.
MAX_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAdapter:
    """An exported folder.

    Args:
        name: The folder's name.
        form: How it is written: ``"lora"``, ``"merged"``, ``"native"`` or ``"own"``.
        verified: Whether it was loaded in a fresh process and reproduced its score.
        files: Names of its files in the store.
    """

    name: str
    form: str
    verified: bool
    files: tuple[str, ...]

    @property
    def folder(self) -> str:
        return self.files[0].split(f"/{self.name}/", 1)[0] + f"/{self.name}"


def stored_adapters(place: ArtifactStore, study_name: str, number: int) -> list[StoredAdapter]:
    """The stored adapters of a trial, by name.

    Args:
        place: Where files are shared.
        study_name: Study.
        number: Trial.

    Raises:
        ArtifactError: If the place cannot be read.
    """
    root = f"{study_folder(study_name)}/adapters"
    folders: dict[str, list[str]] = {}
    for name in place.list_named(root):
        folder, _, rest = name.removeprefix(f"{root}/").partition("/")
        if rest:
            folders.setdefault(folder, []).append(name)
    found = []
    for folder, files in sorted(folders.items()):
        record = _record(place, f"{root}/{folder}/{_RECORD}")
        # Files in a place that several machines write to may be anybody's.
        if record.get("study") == study_name and record.get("trial") == number:
            found.append(
                StoredAdapter(
                    name=folder,
                    form=str(record.get("form", "")),
                    verified=record.get("verified") is True,
                    files=tuple(files),
                )
            )
    return found


def adapter_archive(place: ArtifactStore, adapter: StoredAdapter) -> bytes:
    """A stored adapter as a ZIP file with one folder in it.

    Raises:
        ArtifactError: If it cannot be read, or is larger than `MAX_BYTES`.
    """
    left = MAX_BYTES
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in adapter.files:
            content = place.read_named(check_name(name), limit=left)
            left -= len(content)
            archive.writestr(name.removeprefix(adapter.folder.rpartition("/")[0] + "/"), content)
    return target.getvalue()


def _record(place: ArtifactStore, name: str) -> dict[str, Any]:
    try:
        data = json.loads(place.read_named(name, limit=_MAX_RECORD_BYTES))
    except (NotFoundError, ArtifactError, ValueError, RecursionError):
        # Not an export, or one that is still being stored.
        return {}
    return data if isinstance(data, dict) else {}
