import errno

import pytest

from autopeft.artifacts._errors import translated
from autopeft.exceptions import ArtifactError, UsageError


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full; free some space"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "quota is used up"),
        (OSError(errno.EROFS, "Read-only file system"), "read-only; give another place with --artifacts"),
        (PermissionError("Forbidden"), "permission is denied"),
        (OSError("AWS Error ACCESS_DENIED during PutObject operation"), "check the rights of the credentials"),
        (OSError("AWS Error NETWORK_CONNECTION"), "cannot be reached"),
        (FileNotFoundError(2, "No such file"), "it is not there"),
        (RuntimeError(""), "RuntimeError: no reason given"),
    ],
)
def test_every_error_names_what_failed_why_and_the_way_out(error: Exception, words: str) -> None:
    with pytest.raises(ArtifactError, match=r"^cannot write s3://b/x: ") as caught, translated("cannot write s3://b/x"):
        raise error
    assert words in str(caught.value)
    assert caught.value.exit_code == 4


def test_our_own_errors_pass() -> None:
    with pytest.raises(UsageError, match="mine"), translated("x"):
        raise UsageError("mine")
