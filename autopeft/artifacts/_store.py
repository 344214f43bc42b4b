"""Files by content hash and by name, written whole or not at all."""

from __future__ import annotations

import hashlib
import io
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from autopeft.artifacts._address import ArtifactAddress, open_file_system, parse_address
from autopeft.artifacts._errors import translated
from autopeft.artifacts._names import check_name
from autopeft.exceptions import ArtifactError, NotFoundError, UsageError

#: Largest single artifact, in bytes: what a model of 30 billion parameters in bfloat16 takes.
MAX_BYTES = 64 * 2**30

_CHUNK_BYTES = 4 * 2**20
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file's content, by which it is found.

    Args:
        sha256: 64 hexadecimal digits.
        size: Bytes, >= 0.
    """

    sha256: str
    size: int

    def __post_init__(self) -> None:
        if not _DIGEST.fullmatch(self.sha256):
            raise UsageError(f"an artifact's SHA-256 has 64 hexadecimal digits, but got {self.sha256[:80]!r}.")
        if self.size < 0:
            raise UsageError(f"an artifact's size is at least 0 bytes, but got {self.size}.")


class ArtifactStore:
    """Artifacts at one place. Safe to use by several processes: equal content has one name, and no half file is seen.

    Args:
        address: Where they are.
        max_bytes: Largest single artifact that is written or read, in bytes, > 0.
    """

    def __init__(self, address: ArtifactAddress, *, max_bytes: int = MAX_BYTES) -> None:
        if max_bytes <= 0:
            raise UsageError(f"`max_bytes > 0` must hold, but got {max_bytes}.")
        self.address = address
        self._max_bytes = max_bytes
        self._fs = open_file_system(address)

    @property
    def url(self) -> str:
        """The place as it may be shown."""
        return str(self.address)

    def put(self, content: bytes | Path) -> Artifact:
        """Store content under its hash; what is there already is not sent again.

        Args:
            content: Bytes, or a file.

        Raises:
            ArtifactError: If the file cannot be read, is too large, or cannot be stored.
        """
        artifact = _identify(content)
        self._check_size(artifact.size, _describe(content))
        name = _content_name(artifact.sha256)
        if self._size(name) != artifact.size:
            self._write(name, content, artifact)
        return artifact

    def put_named(self, name: str, content: bytes | Path) -> str:
        """Store content under a name; what stood there is replaced.

        Returns:
            Where it is, as it may be shown.

        Raises:
            UsageError: If the name could mean another place; see `check_name`.
            ArtifactError: As `put`.
        """
        check_name(name)
        artifact = _identify(content)
        self._check_size(artifact.size, _describe(content))
        self._write(f"named/{name}", content, artifact)
        return f"{self._shown_root}/named/{name}"

    def fetch(self, artifact: Artifact, target: Path) -> None:
        """Write content to a local file, whole and verified or not at all.

        Raises:
            NotFoundError: If it is not there.
            ArtifactError: If it cannot be read, is not what its hash says, or the local disk does not take it.
        """
        self._check_size(artifact.size, artifact.sha256[:12])
        self._read(_content_name(artifact.sha256), target, artifact)

    def read(self, artifact: Artifact) -> bytes:
        """Content as bytes, for small artifacts. Raises as `fetch`."""
        self._check_size(artifact.size, artifact.sha256[:12])
        name = _content_name(artifact.sha256)
        sink = io.BytesIO()
        with self._opened(name) as source:
            self._check(name, _copy(source, sink, limit=artifact.size + 1), artifact)
        return sink.getvalue()

    def read_named(self, name: str, *, limit: int = 16 * 2**20) -> bytes:
        """What is stored under a name.

        Args:
            name: As `put_named` took it.
            limit: Most bytes that are read.

        Raises:
            NotFoundError: If nothing is there.
            ArtifactError: If it is larger, or cannot be read.
        """
        check_name(name)
        sink = io.BytesIO()
        with self._opened(f"named/{name}") as source:
            found = _copy(source, sink, limit=limit + 1)
        if found.size > limit:
            raise ArtifactError(f"artifact {name} in {self.url} has more than {limit:,} bytes.")
        return sink.getvalue()

    def list_named(self, prefix: str) -> list[str]:
        """Names below a prefix, sorted; none if there is nothing."""
        check_name(prefix)
        root = self._path("named")
        with translated(f"cannot list {prefix} in {self.url}"):
            try:
                found = self._fs.find(f"{root}/{prefix}")
            except FileNotFoundError:
                return []
        names = [item.lstrip("/").removeprefix(root.lstrip("/") + "/") for item in found]
        return sorted(item for item in names if not item.rpartition("/")[2].startswith("."))

    def _path(self, name: str) -> str:
        return f"{self.address.root}/{name}"

    @property
    def _shown_root(self) -> str:
        return self.url.split("?")[0]

    def _check_size(self, size: int, what: str) -> None:
        if size > self._max_bytes:
            raise ArtifactError(
                f"artifact {what} has {size:,} bytes, and {self._max_bytes:,} are allowed; make it smaller, or put it "
                "where every machine sees it."
            )

    def _size(self, name: str) -> int | None:
        """Size of what is there; None if nothing is."""
        with translated(f"cannot look for {name} in {self.url}"):
            try:
                return int(self._fs.info(self._path(name))["size"])
            except FileNotFoundError:
                return None

    def _write(self, name: str, content: bytes | Path, artifact: Artifact) -> None:
        path = self._path(name)
        folder, _, last = path.rpartition("/")
        # A closed object is a whole one to an object store, even if its writer failed; under another name nobody
        # takes it for one.
        unfinished = f"{folder}/.{last}.{secrets.token_hex(8)}"
        with translated(f"cannot write {name} to {self.url}"):
            try:
                if self.address.scheme in ("file", "memory"):
                    self._fs.makedirs(folder, exist_ok=True)
                with _source(content) as source, self._fs.open(unfinished, "wb") as sink:
                    written = _copy(source, sink)
                    _sync(sink)
                if written != artifact:
                    raise ArtifactError(f"{_describe(content)} was changed while it was being stored; try again.")
                self._fs.mv(unfinished, path)
            except BaseException:
                with suppress(Exception):
                    self._fs.rm(unfinished)
                raise

    def _read(self, name: str, target: Path, artifact: Artifact) -> None:
        unfinished = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
        try:
            with self._opened(name) as source:
                with translated(f"cannot write {target}"):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    sink = unfinished.open("xb")
                with sink:
                    # A store that sends more than was asked for must not fill the disk.
                    self._check(name, _copy(source, sink, limit=artifact.size + 1, where=str(target)), artifact)
            with translated(f"cannot write {target}"):
                unfinished.replace(target)
        finally:
            with suppress(OSError):
                unfinished.unlink()

    @contextmanager
    def _opened(self, name: str) -> Iterator[IO[bytes]]:
        with translated(f"cannot read {name} from {self.url}"):
            try:
                source = self._fs.open(self._path(name), "rb")
            except FileNotFoundError as error:
                raise NotFoundError(
                    f"artifact {name} is not in {self.url}; whoever made it may have used another place "
                    "(--artifacts, AUTOPEFT_ARTIFACTS), or it was removed."
                ) from error
            with source:
                yield source

    def _check(self, name: str, found: Artifact, wanted: Artifact) -> None:
        if found != wanted:
            raise ArtifactError(
                f"artifact {name} in {self.url} is damaged: it must have {wanted.size:,} bytes with the SHA-256 "
                f"{wanted.sha256[:12]}, but has {'more' if found.size > wanted.size else f'{found.size:,}'} with "
                f"{found.sha256[:12]}; remove it, and whoever needs it stores it again."
            )


def open_artifacts(url: str | Path, *, max_bytes: int = MAX_BYTES) -> ArtifactStore:
    """The artifacts at a folder or URL; nothing is contacted yet.

    Args:
        url: A folder, or the URL of an object store, as `parse_address` reads it.
        max_bytes: Largest single artifact, in bytes.

    Raises:
        UsageError: If it cannot be read.
    """
    return ArtifactStore(parse_address(url), max_bytes=max_bytes)


def _content_name(sha256: str) -> str:
    return f"sha256/{sha256[:2]}/{sha256}"


def _describe(content: bytes | Path) -> str:
    return str(content) if isinstance(content, Path) else "in memory"


@contextmanager
def _source(content: bytes | Path) -> Iterator[IO[bytes]]:
    if isinstance(content, Path):
        with content.open("rb") as source:
            yield source
    else:
        yield io.BytesIO(content)


def _identify(content: bytes | Path) -> Artifact:
    with translated(f"cannot read {_describe(content)}"), _source(content) as source:
        return _copy(source, None)


def _copy(source: IO[bytes], sink: Any, *, limit: int | None = None, where: str | None = None) -> Artifact:
    """Copy and identify what was copied; at most `limit` bytes. `where` names the local target of the copy."""
    digest, size = hashlib.sha256(), 0
    while limit is None or size < limit:
        chunk = source.read(_CHUNK_BYTES if limit is None else min(_CHUNK_BYTES, limit - size))
        if not chunk:
            break
        if sink is not None and where is None:
            sink.write(chunk)
        elif sink is not None:
            with translated(f"cannot write {where}"):
                sink.write(chunk)
        digest.update(chunk)
        size += len(chunk)
    return Artifact(sha256=digest.hexdigest(), size=size)


def _sync(sink: Any) -> None:
    """Have a local file on the disk before it gets its name; other file systems see to that themselves."""
    sink.flush()
    with suppress(AttributeError, OSError, io.UnsupportedOperation):
        os.fsync(sink.fileno())
