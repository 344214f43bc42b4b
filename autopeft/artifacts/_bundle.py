"""Several files that belong together, found again by one hash."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autopeft.artifacts._errors import translated
from autopeft.artifacts._names import check_name
from autopeft.artifacts._store import Artifact, ArtifactStore
from autopeft.exceptions import ArtifactError, UsageError

MAX_FILES = 10_000
_MAX_MANIFEST_BYTES = 4 * 2**20
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Files by name, and the artifact that lists them.

    Args:
        manifest: The list, an artifact itself; its hash is the bundle's.
        files: Each file's content by its name in the bundle.
    """

    manifest: Artifact
    files: Mapping[str, Artifact]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(item.size for item in self.files.values())


def put_bundle(store: ArtifactStore, files: Mapping[str, Path]) -> Bundle:
    """Store files together; those that are there already are not sent again.

    Args:
        store: Where to.
        files: Local files by their names in the bundle.

    Raises:
        UsageError: If there are none or too many, or a name could mean another place.
        ArtifactError: If a file cannot be read or stored.
    """
    if not 1 <= len(files) <= MAX_FILES:
        raise UsageError(f"a bundle has 1 to {MAX_FILES:,} files, but got {len(files):,}.")
    for name in files:
        check_name(name)
    found = {name: store.put(files[name]) for name in sorted(files)}
    listing = [{"name": name, "sha256": item.sha256, "size": item.size} for name, item in found.items()]
    text = json.dumps({"version": _VERSION, "files": listing}, sort_keys=True, separators=(",", ":"))
    # Last, so that whoever finds the list finds the files.
    return Bundle(manifest=store.put(text.encode()), files=found)


def fetch_bundle(store: ArtifactStore, manifest: Artifact, folder: Path) -> Path:
    """Fetch a bundle's files into a folder of its own below `folder`, unless they are there.

    Args:
        store: Where from.
        manifest: As `put_bundle` gave it.
        folder: Cache of bundles; processes may share it.

    Returns:
        The folder with the files; it is there whole or not at all.

    Raises:
        NotFoundError: If the bundle, or one of its files, is not in the store.
        ArtifactError: If it is damaged, or the local disk does not take it.
    """
    target = folder / manifest.sha256[:32]
    if target.is_dir():
        return target
    bundle = read_bundle(store, manifest)
    _check_room(folder, bundle.size)
    unfinished = folder / f".{target.name}.{secrets.token_hex(8)}"
    try:
        for name, artifact in bundle.files.items():
            store.fetch(artifact, unfinished / name)
        with translated(f"cannot write {target}"):
            try:
                unfinished.rename(target)
            except OSError:
                # Another process was faster; its files are the same.
                if not target.is_dir():
                    raise
    finally:
        with suppress(OSError):
            shutil.rmtree(unfinished)
    return target


def read_bundle(store: ArtifactStore, manifest: Artifact) -> Bundle:
    """What a bundle holds.

    Raises:
        NotFoundError: If it is not there.
        ArtifactError: If its list is not one.
    """
    what = f"the bundle {manifest.sha256[:12]} in {store.url}"
    if manifest.size > _MAX_MANIFEST_BYTES:
        raise ArtifactError(f"{what} has a list of {manifest.size:,} bytes, and {_MAX_MANIFEST_BYTES:,} are allowed.")
    try:
        data: Any = json.loads(store.read(manifest))
        if data["version"] != _VERSION or not 1 <= len(data["files"]) <= MAX_FILES:
            raise ValueError(f"version {data['version']!r} with {len(data['files'])} files")
        files = {
            check_name(str(item["name"])): Artifact(sha256=str(item["sha256"]), size=int(item["size"]))
            for item in data["files"]
        }
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{what} has no list of files that can be read: {error}") from error
    return Bundle(manifest=manifest, files=files)


def _check_room(folder: Path, n_bytes: int) -> None:
    with translated(f"cannot write {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise ArtifactError(
            f"cannot write {n_bytes:,} bytes into {folder}: the disk has {free:,} left; free some space, or choose "
            "another folder with AUTOPEFT_HOME."
        )
