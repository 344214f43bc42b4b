"""From what file systems and object stores raise to one error with a way out."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from autopeft.exceptions import ArtifactError, AutoPeftError

_ADVICE = "give another place with --artifacts or AUTOPEFT_ARTIFACTS"
_KINDS = {
    errno.ENOSPC: ("the disk is full", f"free some space, or {_ADVICE}"),
    errno.EDQUOT: ("the disk quota is used up", f"free some space, or {_ADVICE}"),
    errno.EROFS: ("it is read-only", _ADVICE),
    errno.EACCES: ("permission is denied", f"change its permissions, or {_ADVICE}"),
    errno.EPERM: ("permission is denied", f"change its permissions, or {_ADVICE}"),
    errno.ENOTDIR: ("a part of its path is a file", _ADVICE),
    errno.ENAMETOOLONG: ("its path is too long", _ADVICE),
}
#: Words in the messages of object stores, with what they mean; they come without an error number.
_WORDS = (
    ("NO_SUCH_BUCKET", "there is no such bucket", "create it, or correct the name"),
    ("bucket does not exist", "there is no such bucket", "create it, or correct the name"),
    ("ACCESS_DENIED", "access is denied", "check the rights of the credentials"),
    ("INVALID_ACCESS_KEY", "the credentials are unknown", "check AWS_ACCESS_KEY_ID, or the AWS profile"),
    ("SIGNATURE_DOES_NOT_MATCH", "the credentials are wrong", "check AWS_SECRET_ACCESS_KEY, or the AWS profile"),
    ("NETWORK_CONNECTION", "it cannot be reached", "check the network and the endpoint"),
    ("Could not resolve", "it cannot be reached", "check the network and the endpoint"),
)  # fmt: skip


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise `ArtifactError` for whatever the file system raises.

    Args:
        what: What was being done and where, as in ``"cannot write s3://bucket/name"``.
    """
    try:
        yield
    except AutoPeftError:
        raise
    except Exception as error:
        # Every object store has errors of its own.
        raise ArtifactError(_explain(what, error)) from error


def _explain(what: str, error: Exception) -> str:
    detail = " ".join(str(error).split())[:300]
    number = getattr(error, "errno", None)
    for word, reason, advice in _WORDS:
        if word in detail:
            return f"{what}: {reason} ({detail}); {advice}."
    if isinstance(error, PermissionError) and number is None:
        number = errno.EACCES
    if number in _KINDS:
        reason, advice = _KINDS[number]
        return f"{what}: {reason}; {advice}."
    if isinstance(error, FileNotFoundError):
        return f"{what}: it is not there; whoever made it may have used another place, or it was removed."
    return f"{what}: {type(error).__name__}: {detail or 'no reason given'}; {_ADVICE}."
