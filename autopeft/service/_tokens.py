"""Who may do what: bearer tokens, of which only digests are kept."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final, Self

from autopeft.exceptions import UsageError

#: Shorter ones can be guessed.
MIN_TOKEN_LENGTH: Final = 16
#: The environment's token, and the caller where no token is asked for.
DEFAULT_NAME: Final = "default"
TOKEN_VARIABLE: Final = "AUTOPEFT_API_TOKEN"  # noqa: S105 (its name, not a token)
TOKEN_FILE_VARIABLE: Final = "AUTOPEFT_API_TOKEN_FILE"  # noqa: S105 (likewise)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# What RFC 6750 allows in an Authorization header.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_MAX_FILE_BYTES = 1_000_000


class Role(IntEnum):
    """What a token allows; each role what the ones before it do."""

    READ = 1  #: read everything
    WRITE = 2  #: submit searches, upload data, stop and resume one's own
    ADMIN = 3  #: stop and resume everybody's


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks.

    Args:
        name: Of the token; searches are scheduled fairly among names.
        role: What it allows.
    """

    name: str
    role: Role


#: Who asks where the operator asks for no token.
ANYBODY: Final = Caller(name=DEFAULT_NAME, role=Role.ADMIN)


class TokenBook:
    """The tokens of a service.

    Args:
        tokens: Callers by token.

    Raises:
        UsageError: If a token is too short or cannot stand in a header, or a name or token stands twice.
    """

    def __init__(self, tokens: Iterable[tuple[Caller, str]]) -> None:
        self._callers: list[tuple[Caller, bytes]] = []
        for caller, token in tokens:
            _check(caller, token)
            digest = _digest(token)
            if any(item.name == caller.name for item, _ in self._callers):
                raise UsageError(f"two tokens have the name {caller.name!r}; names must differ.")
            if any(hmac.compare_digest(known, digest) for _, known in self._callers):
                raise UsageError(f"the token of {caller.name!r} has another name as well; every token has one name.")
            self._callers.append((caller, digest))

    def __len__(self) -> int:
        return len(self._callers)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all callers."""
        return tuple(caller.name for caller, _ in self._callers)

    def find(self, token: str) -> Caller | None:
        """Whose token it is; None if nobody's. Takes as long whichever it is."""
        given = _digest(token)
        found = None
        for caller, known in self._callers:
            if hmac.compare_digest(known, given):
                found = caller
        return found

    @classmethod
    def parse(cls, text: str, source: str) -> Self:
        """Read tokens: a line with one token alone, or lines of ``NAME TOKEN [read|write|admin]``.

        Empty lines and those that start with # are passed over. A token without a name is the operator's (admin), one
        with a name and without a role may write.

        Raises:
            UsageError: If a line is none of these; its token is not shown.
        """
        found = []
        for number, line in enumerate(text.splitlines(), start=1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) > 3:
                raise UsageError(f"{source}, line {number}: must be TOKEN or NAME TOKEN [read|write|admin].")
            if len(words) == 1:
                found.append((Caller(name=DEFAULT_NAME, role=Role.ADMIN), words[0]))
                continue
            if not _NAME.fullmatch(words[0]):
                raise UsageError(f"{source}, line {number}: a name has letters, digits, dots, dashes; at most 64.")
            found.append((Caller(name=words[0], role=_role(words[2:], f"{source}, line {number}")), words[1]))
        if not found:
            raise UsageError(f"{source} holds no token; write one, for example with: openssl rand -hex 32.")
        return cls(found)


def find_tokens(file: Path | None, environment: Mapping[str, str]) -> TokenBook | None:
    """The tokens of a service: of a file that was named, else of the environment's file, else the environment's own.

    Returns:
        None if there are none.

    Raises:
        UsageError: If a file cannot be read or a token cannot be used.
    """
    text, source = read_tokens(file, environment)
    return None if text is None else TokenBook.parse(text, source)


def read_tokens(file: Path | None, environment: Mapping[str, str]) -> tuple[str | None, str]:
    """The text that holds tokens, and what messages call it; see `find_tokens`.

    Raises:
        UsageError: If a file cannot be read.
    """
    named = environment.get(TOKEN_FILE_VARIABLE)
    path = file or (Path(named) if named else None)
    if path is not None:
        source = f"token file {path}" if file else f"token file {path} ({TOKEN_FILE_VARIABLE})"
        try:
            with path.expanduser().open(encoding="utf-8") as stream:
                return stream.read(_MAX_FILE_BYTES), source
        except OSError as error:
            raise UsageError(f"{source}: cannot be read: {error.strerror or error}.") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"{source}: is not text.") from error
    return environment.get(TOKEN_VARIABLE) or None, TOKEN_VARIABLE


def _role(words: list[str], where: str) -> Role:
    if not words:
        return Role.WRITE
    try:
        return Role[words[0].upper()]
    except KeyError:
        raise UsageError(f"{where}: a role is read, write or admin, but got {words[0][:20]!r}.") from None


def _check(caller: Caller, token: str) -> None:
    if len(token) < MIN_TOKEN_LENGTH:
        raise UsageError(
            f"the token of {caller.name!r} has {len(token)} characters, but at least {MIN_TOKEN_LENGTH} are needed; "
            "make one with: openssl rand -hex 32."
        )
    if not _TOKEN.fullmatch(token):
        raise UsageError(f"the token of {caller.name!r} has characters that no header carries; use letters and digits.")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
