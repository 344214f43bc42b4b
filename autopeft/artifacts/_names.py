"""Which names an artifact may have: those that mean one place below the store's root, on every file system."""

from __future__ import annotations

import hashlib
import re
import unicodedata

from autopeft.exceptions import UsageError

MAX_NAME_BYTES = 512
MAX_PART_BYTES = 200

# Windows gives these a meaning of their own, with any ending.
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|]')


def check_name(name: str) -> str:
    """Check a relative name such as ``studies/rte/report.html``.

    Args:
        name: Parts separated by slashes.

    Returns:
        The name.

    Raises:
        UsageError: If it could mean anything but one file below the root: an absolute path, ``..``, an empty or hidden
            part, a character that a file system gives a meaning, or more bytes than file systems take.
    """
    problem = _problem(name)
    if problem is not None:
        raise UsageError(
            f"an artifact's name is relative, with parts of letters, digits and plain punctuation between slashes, but "
            f"{shown(name)} {problem}."
        )
    return name


def shown(name: str) -> str:
    """A name for messages: quoted, control characters escaped, cut at 80 characters."""
    return ascii(name[:80]) + ("..." if len(name) > 80 else "")


def safe_part(text: str) -> str:
    """One part of a name, made of any text: what is not a letter, digit, ``.``, ``_`` or ``-`` becomes ``_``."""
    part = re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip(".")[:MAX_PART_BYTES] or "_"
    return f"_{part}" if _RESERVED.fullmatch(part) else part.rstrip(".")


def study_folder(study: str) -> str:
    """Where the results of a study are: ``studies/STUDY``.

    A name that cannot stand in a path is told from others that look like it by the beginning of its hash.
    """
    part = safe_part(study)
    if part != study:
        digest = hashlib.sha256(study.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        part = f"{part[: MAX_PART_BYTES - 9]}-{digest}"
    return f"studies/{part}"


def _problem(name: str) -> str | None:
    try:
        n_bytes = len(name.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode"
    if not name:
        return "is empty"
    if n_bytes > MAX_NAME_BYTES:
        return f"has {n_bytes} bytes, and {MAX_NAME_BYTES} are allowed"
    if name.startswith(("/", "~")):
        return "is an absolute path"
    found = _FORBIDDEN.search(name)
    if found is not None:
        return f"holds {found[0]!a}"
    if any(unicodedata.category(item) in ("Cf", "Zl", "Zp") for item in name):
        return "holds an invisible character"
    for part in name.split("/"):
        if part in ("", ".", ".."):
            return f"has the part {part!r}"
        if part.startswith(".") or part != part.strip() or part.endswith("."):
            return f"has the part {shown(part)}, which begins or ends with a dot or a space"
        if len(part.encode()) > MAX_PART_BYTES:
            return f"has a part of more than {MAX_PART_BYTES} bytes"
        if _RESERVED.fullmatch(part):
            return f"has the part {part!r}, which is a device on some systems"
    return None
