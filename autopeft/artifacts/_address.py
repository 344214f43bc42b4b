"""From a folder or URL to a file system, and a path in it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from autopeft.artifacts._errors import translated
from autopeft.exceptions import UsageError

_SUPPORTED = "a folder, s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or abfs://CONTAINER/FOLDER"
#: Schemes that pyarrow reads; it comes with its own clients of these object stores.
_OBJECT_STORES = ("s3", "gs", "abfs")
#: What may stand behind the question mark of an object store's URL; the rest is credentials, or nothing we know.
_QUERY = ("endpoint_override", "scheme", "region")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactAddress:
    """Where artifacts are.

    Args:
        scheme: ``"file"``, ``"memory"``, ``"s3"``, ``"gs"`` or ``"abfs"``.
        root: Absolute path of a folder; bucket and folder of an object store.
        query: Options of the object store.
    """

    scheme: str
    root: str
    query: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.scheme == "file":
            return self.root
        return f"{self.scheme}://{self.root}" + (f"?{urlencode(self.query)}" if self.query else "")

    @property
    def is_shared(self) -> bool:
        """Whether every machine sees the same files there without a disk in common."""
        return self.scheme in _OBJECT_STORES


def parse_address(text: str | Path) -> ArtifactAddress:
    """Read a folder's path or a URL.

    Raises:
        UsageError: If it is none that is supported, or holds credentials.
    """
    written = str(text).strip()
    if "://" not in written:
        if not written:
            raise UsageError(f"artifacts need a place, but got an empty one; give {_SUPPORTED}.")
        return ArtifactAddress(scheme="file", root=str(Path(written).expanduser().absolute()))
    parts = urlsplit(written)
    scheme = {"gcs": "gs", "s3a": "s3", "az": "abfs"}.get(parts.scheme, parts.scheme)
    shown = re.sub(r"//[^/@]*@", "//***@", written.split("?")[0])
    if scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise UsageError(f"artifacts at {shown!r}: a file URL has three slashes and an absolute path.")
        return ArtifactAddress(scheme="file", root=parts.path)
    if scheme not in (*_OBJECT_STORES, "memory"):
        raise UsageError(f"artifacts at {shown!r}: {scheme!r} is not supported; give {_SUPPORTED}.")
    if "@" in parts.netloc and scheme != "abfs":
        raise UsageError(
            f"artifacts at {shown!r}: credentials do not belong in the URL, which is shown and stored; put them into "
            "the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or a profile."
        )
    if not parts.netloc:
        raise UsageError(f"artifacts at {shown!r}: there is no bucket; give {_SUPPORTED}.")
    root = "/".join(item for item in (parts.netloc, *parts.path.split("/")) if item)
    if ".." in root.split("/"):
        raise UsageError(f"artifacts at {shown!r}: '..' has no meaning in a bucket.")
    return ArtifactAddress(scheme=scheme, root=root, query=_query(shown, parts.query))


def _query(shown: str, text: str) -> dict[str, str]:
    query = dict(parse_qsl(text))
    odd = sorted(set(query) - set(_QUERY))
    if odd:
        raise UsageError(
            f"artifacts at {shown!r}: the options may be {', '.join(_QUERY)}, but got {', '.join(odd)}; credentials "
            "belong into the environment or a profile."
        )
    return query


def open_file_system(address: ArtifactAddress) -> Any:
    """The file system as fsspec has it; nothing is contacted yet.

    Raises:
        ArtifactError: If its client cannot be made.
    """
    import fsspec

    if address.scheme in ("file", "memory"):
        return fsspec.filesystem(address.scheme)
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import FileSystem

    query = dict(address.query)
    if address.scheme == "s3" and "endpoint_override" not in query:
        # What other clients of S3 look at, and pyarrow does not.
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if endpoint:
            parts = urlsplit(endpoint)
            query |= {"endpoint_override": parts.netloc, "scheme": parts.scheme or "https"}
    with translated(f"cannot open the artifacts at {address}"):
        url = f"{address.scheme}://{quote(address.root)}" + (f"?{urlencode(query)}" if query else "")
        native, _ = FileSystem.from_uri(url)
        return ArrowFSWrapper(native)
