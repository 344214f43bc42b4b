"""Files that callers hand in: data, search spaces, earlier studies. Kept by content, each caller's apart."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from autopeft.exceptions import MachineError, NotFoundError, TaskError, UsageError
from autopeft.tasks import READERS

#: In settings, an uploaded file is named by this and its address.
PREFIX: Final = "upload:"
DATA_SUFFIXES: Final = tuple(READERS)
SPACE_SUFFIXES: Final = (".yaml", ".yml")
STUDY_SUFFIX: Final = ".json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ADDRESS = re.compile(r"([0-9a-f]{64})/(" + _NAME.pattern + ")")
_MAX_SPACE_BYTES = 64 * 1024
_CHECK_TIMEOUT_S = 120
_UNFINISHED = ".new-"
_ABANDONED_S = 3600.0
#: So many bytes may arrive before it is looked again how much room there is.
_LOOK_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An uploaded file.

    Args:
        reference: What settings call it: ``upload:SHA256/NAME``.
        path: Where it is on this machine.
        size: In bytes.
    """

    reference: str
    path: Path
    size: int


class UploadFolder:
    """Uploaded files below a folder, by caller, content and name.

    Args:
        folder: Where they are.
        max_bytes: Largest file.
        max_stored_bytes: All files of one caller together.
    """

    def __init__(self, folder: Path, *, max_bytes: int, max_stored_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_stored_bytes = max_stored_bytes
        self._forget_unfinished()

    async def receive(self, owner: str, name: str, parts: AsyncIterator[bytes]) -> Path:
        """Write what arrives to a file beside the others; `keep` makes it one of them.

        Raises:
            UsageError: If the name cannot be, or the file becomes too large.
        """
        check_name(name)
        own = self._own(owner)
        room = self._room(owner)
        handle, path = tempfile.mkstemp(dir=own, prefix=_UNFINISHED, suffix=Path(name).suffix.lower())
        size, look_at = 0, _LOOK_BYTES
        try:
            with os.fdopen(handle, "wb") as file:
                async for part in parts:
                    size += len(part)
                    if size > look_at:
                        # Others of the same caller may be arriving at the same time.
                        file.flush()
                        room, look_at = self._room(owner, without=Path(path)), size + _LOOK_BYTES
                    if size > room:
                        raise UsageError(
                            f"upload {name}: at most {self._max_bytes:,} bytes a file and {self._max_stored_bytes:,} "
                            f"bytes for all of yours are allowed, and there is room for {max(room, 0):,} now; delete "
                            "uploads that no search needs any more."
                        )
                    file.write(part)
        except BaseException:
            Path(path).unlink(missing_ok=True)
            raise
        return Path(path)

    def keep(self, owner: str, name: str, received: Path) -> Upload:
        """Check a received file and keep it under its content's address.

        Raises:
            UsageError: If it is not what its name says it is.
        """
        try:
            check_name(name)
            check_content(received, name)
            digest = _digest(received)
            target = self._own(owner) / digest / name
            target.parent.mkdir(mode=0o700, exist_ok=True)
            received.chmod(0o600)
            received.replace(target)
        except OSError as error:
            raise MachineError(f"upload {name}: cannot be kept: {error.strerror or error}.") from error
        finally:
            received.unlink(missing_ok=True)
        return Upload(reference=f"{PREFIX}{digest}/{name}", path=target, size=target.stat().st_size)

    def find(self, owner: str, reference: str) -> Upload:
        """The file that a reference names.

        Raises:
            UsageError: If it is no reference.
            NotFoundError: If the caller has no such file.
        """
        match = _ADDRESS.fullmatch(reference.removeprefix(PREFIX)) if reference.startswith(PREFIX) else None
        if match is None:
            raise UsageError(f"{reference[:200]!r} is no uploaded file; one is called {PREFIX}SHA256/NAME.")
        path = self._own(owner) / match[1] / match[2]
        if not path.is_file():
            raise NotFoundError(f"you have no upload {reference}; upload the file again.")
        return Upload(reference=reference, path=path, size=path.stat().st_size)

    def list(self, owner: str) -> list[Upload]:
        """All files of a caller, by name."""
        own = self._own(owner)
        found = [
            Upload(reference=f"{PREFIX}{path.parent.name}/{path.name}", path=path, size=path.stat().st_size)
            for path in own.glob("*/*")
            if path.is_file()
        ]
        return sorted(found, key=lambda item: (item.path.name, item.reference))

    def delete(self, owner: str, reference: str) -> None:
        """Forget a file; see `find`. The same content under another name stays."""
        path = self.find(owner, reference).path
        path.unlink(missing_ok=True)
        with suppress(OSError):
            path.parent.rmdir()

    def _own(self, owner: str) -> Path:
        path = self._folder / owner
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def _room(self, owner: str, *, without: Path | None = None) -> int:
        """Bytes that a file of this caller may have now; those that are arriving count as stored."""
        stored = 0
        for path in self._own(owner).rglob("*"):
            # What was there a moment ago may have got its name, or have been refused.
            with suppress(FileNotFoundError):
                if path != without and path.is_file():
                    stored += path.stat().st_size
        return min(self._max_bytes, self._max_stored_bytes - stored)

    def _forget_unfinished(self) -> None:
        """Remove what a service left behind that was killed while files arrived."""
        for path in self._folder.glob(f"*/{_UNFINISHED}*"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()


def check_name(name: str) -> None:
    """Refuse what is no plain file name, or ends in nothing that a search reads.

    Raises:
        UsageError: Names the rule.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"upload {name[:100]!r}: a file's name has letters, digits, dots, dashes and underscores, at most 100."
        )
    known = (*DATA_SUFFIXES, *SPACE_SUFFIXES)
    if Path(name).suffix.lower() not in known:
        raise UsageError(f"upload {name}: its name must end in one of {', '.join(known)}.")


def check_content(path: Path, name: str) -> None:
    """See in a process of its own, with little memory and time, that a file is what its name says.

    Raises:
        UsageError: If it is not.
    """
    if Path(name).suffix.lower() in SPACE_SUFFIXES and path.stat().st_size > _MAX_SPACE_BYTES:
        raise UsageError(f"upload {name}: a search space has at most {_MAX_SPACE_BYTES:,} bytes.")
    # -P: nothing of the folder it runs in is imported. -I would hide packages of the user's environment.
    command = [sys.executable, "-P", "-m", "autopeft.service._check_upload", str(path), name]
    try:
        done = subprocess.run(  # noqa: S603  # our own words, no shell  # nosec B603
            command, capture_output=True, text=True, timeout=_CHECK_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise TaskError(f"upload {name}: reading it took longer than {_CHECK_TIMEOUT_S} s.") from error
    if done.returncode == 2:
        raise TaskError(f"upload {name}: {done.stdout.strip().replace(str(path), name)}")
    if done.returncode != 0:
        raise TaskError(f"upload {name}: cannot be read within the limits of memory and time for uploads.")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
