"""Results that go to the place of artifacts as well: --publish."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autopeft.cli._output import tell
from autopeft.exceptions import UsageError

if TYPE_CHECKING:
    from autopeft.artifacts import ArtifactStore

PublishOption = Annotated[
    bool, typer.Option("--publish", help="Store it in the place of --artifacts as well, below studies/STUDY.")
]


def require_place(given: str | None) -> ArtifactStore:
    """The place of artifacts, looked at before the work that ends there begins.

    Raises:
        UsageError: If none is named, or it is no place.
    """
    from autopeft.artifacts import open_artifacts

    if given is None:
        raise UsageError("--publish needs a place; give --artifacts PLACE or set AUTOPEFT_ARTIFACTS.")
    return open_artifacts(given)


def publish_result(place: ArtifactStore, study: str, kind: str, path: Path) -> None:
    """Store a file or folder, and say where it is."""
    from autopeft.artifacts import publish

    names = publish(place, study, kind, path)
    shown = names[0] if len(names) == 1 else f"{len(names)} files below {names[0].rpartition('/')[0]}"
    tell(f"Published {shown} in {place.url}.")
