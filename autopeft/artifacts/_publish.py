"""Results under names that people read: an exported adapter's folder, a report."""

from __future__ import annotations

from pathlib import Path

from autopeft.artifacts._bundle import MAX_FILES
from autopeft.artifacts._names import safe_part, study_folder
from autopeft.artifacts._store import ArtifactStore
from autopeft.exceptions import UsageError


def publish(store: ArtifactStore, study: str, kind: str, path: Path) -> list[str]:
    """Store a file, or a folder with all that is in it, as ``studies/STUDY/KIND/NAME``; what stood there is replaced.

    Args:
        store: Where to.
        study: Name of the study; see `study_folder`.
        kind: What it is, one word: ``"adapters"`` or ``"reports"``.
        path: The file or folder.

    Returns:
        Names of what was stored, sorted, as `ArtifactStore.read_named` takes them.

    Raises:
        UsageError: If a folder holds nothing, too many files, or a file whose name could mean another place.
        ArtifactError: If something cannot be read or stored.
    """
    root = f"{study_folder(study)}/{safe_part(kind)}/{safe_part(path.name)}"
    if not path.is_dir():
        store.put_named(root, path)
        return [root]
    files = sorted(item for item in path.rglob("*") if item.is_file() and not item.is_symlink())
    if not 1 <= len(files) <= MAX_FILES:
        raise UsageError(f"{path} must hold 1 to {MAX_FILES:,} files to be published, but it holds {len(files):,}.")
    names = [f"{root}/{item.relative_to(path).as_posix()}" for item in files]
    for name, item in zip(names, files, strict=True):
        store.put_named(name, item)
    return names
