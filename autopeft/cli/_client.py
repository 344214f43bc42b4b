"""Talking to a service: one request at a time, every failure an error with the way out."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self
from urllib.parse import quote, urlsplit

from autopeft.cli._output import tell
from autopeft.exceptions import NotFoundError, ServiceError, SubmissionConflictError, UsageError
from autopeft.export import SCHEMA_VERSION
from autopeft.service import is_loopback, read_tokens

if TYPE_CHECKING:
    import httpx2

_TIMEOUT_S: Final = 60.0
#: Reading a whole study, or having an uploaded file checked, may take a while.
_SLOW_TIMEOUT_S: Final = 300.0
_MAX_WAITS: Final = 5
_MAX_WAIT_S: Final = 30.0
_CHUNK_BYTES: Final = 2**20


class ServiceClient:
    """Requests to one service, with its token.

    Args:
        url: Of the service: ``https://host:port``.
        token: Bearer token; None for a service that asks for none.
        ca_file: Certificates of the authorities that are trusted; None for the usual ones.
        sleep: Waits so many seconds, between requests that were too many.
        transport: What carries requests; None for the network.

    Raises:
        UsageError: If the URL is none, or the file cannot be read.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        ca_file: Path | None = None,
        sleep: Callable[[float], None] = time.sleep,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        import httpx2

        self.url = _checked(url)
        self._sleep = sleep
        host = urlsplit(self.url).hostname or ""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        if token is not None and self.url.startswith("http:") and not is_loopback(host):
            tell(f"Warning: the token travels to {host} unencrypted; use https.")
        self._client = httpx2.Client(
            base_url=self.url,
            headers=headers,
            timeout=httpx2.Timeout(_TIMEOUT_S, read=_SLOW_TIMEOUT_S),
            # A redirect would carry the token to whoever it names.
            follow_redirects=False,
            # A proxy of the environment cannot reach this machine's own loopback.
            trust_env=not is_loopback(host),
            verify=True if ca_file is None else _trusted(ca_file),
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    def get(self, path: str, **params: str | int) -> dict[str, Any]:
        """Ask for a document.

        Raises:
            ServiceError: If the service cannot be reached, refuses the token, or failed.
            NotFoundError: If there is no such thing.
            UsageError: If the request is refused.
        """
        return self._document(self._ask("GET", path, params=params))

    def post(self, path: str, document: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a document. Raises as `get`, and `SubmissionConflictError` where it does not fit what is there."""
        return self._document(self._ask("POST", path, json=document) if document else self._ask("POST", path))

    def upload(self, path: Path) -> str:
        """Hand in a file.

        Returns:
            What settings call it.
        """
        try:
            with path.open("rb") as file:
                parts = iter(lambda: file.read(_CHUNK_BYTES), b"")
                headers = {"Content-Length": str(path.stat().st_size), "Content-Type": "application/octet-stream"}
                answer = self._ask("POST", "/v1/uploads", params={"name": path.name}, content=parts, headers=headers)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from error
        return str(self._document(answer)["reference"])

    def _ask(self, method: str, path: str, **options: Any) -> httpx2.Response:
        import httpx2

        for n_waits in range(_MAX_WAITS + 1):
            try:
                answer = self._client.request(method, path, **options)
            except httpx2.TransportError as error:
                raise ServiceError(self._explain(error)) from error
            if answer.status_code != 429 or n_waits == _MAX_WAITS or "content" in options:
                break
            self._sleep(min(float(answer.headers.get("Retry-After", "1")), _MAX_WAIT_S))
        if answer.status_code >= 300:
            self._refuse(answer)
        return answer

    def _document(self, answer: httpx2.Response) -> dict[str, Any]:
        try:
            found = answer.json()
            version = found["schema_version"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ServiceError(f"{self.url} is no autopeft service: it answered {answer.text[:80]!r}.") from error
        if version != SCHEMA_VERSION:
            raise ServiceError(
                f"{self.url} speaks version {version} of the API, this autopeft version {SCHEMA_VERSION}; use the same "
                "version of autopeft on both sides."
            )
        return dict(found)

    def _refuse(self, answer: httpx2.Response) -> NoReturn:
        status = answer.status_code
        try:
            message = str(answer.json()["error"]["message"])
        except (ValueError, KeyError, TypeError, RecursionError):
            message = f"it answered {status} {answer.text[:80]!r}"
        if status == 401:
            raise ServiceError(
                f"{self.url} does not know the token; set AUTOPEFT_API_TOKEN or give --token-file FILE with one that "
                "it knows."
            )
        if status == 404:
            raise NotFoundError(f"{self.url}: {message}")
        if status == 409:
            raise SubmissionConflictError(f"{self.url}: {message}")
        if status < 500 and status != 429 and status >= 400:
            raise UsageError(f"{self.url}: {message}")
        raise ServiceError(f"{self.url}: {message}")

    def _explain(self, error: httpx2.TransportError) -> str:
        detail = " ".join(str(error).split()) or type(error).__name__
        if "CERTIFICATE_VERIFY_FAILED" in detail:
            return (
                f"the certificate of {self.url} is not trusted ({detail}); give its authority's certificate with "
                "--ca-file FILE."
            )
        return f"{self.url} cannot be reached ({detail}); is the service running there, and is the URL right?"


def study_path(name: str, *rest: str) -> str:
    """The path of something that belongs to a study."""
    return "/".join(["/v1/studies", quote(name, safe=""), *rest])


def search_path(name: str, *rest: str) -> str:
    """The path of something that belongs to a submitted search."""
    return "/".join(["/v1/searches", quote(name, safe=""), *rest])


def find_token(file: Path | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The caller's own token, of a file or the environment; None if there is none.

    Raises:
        UsageError: If there are several, or a file cannot be read.
    """
    text, source = read_tokens(file, environment)
    if text is None:
        return None
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if len(lines) != 1:
        raise UsageError(f"{source} must hold one token to ask with, but holds {len(lines)}.")
    # As the service's own file has it: NAME TOKEN [ROLE].
    return lines[0][0] if len(lines[0]) == 1 else lines[0][1]


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UsageError(f"--server must be a URL like https://host:8500, but got {url!r}.")
    if parts.username is not None or parts.password is not None:
        raise UsageError("--server must name no user; the token is given by AUTOPEFT_API_TOKEN or --token-file.")
    return url.rstrip("/")


def _trusted(path: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(path.expanduser()))
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"--ca-file {path}: no certificates can be read from it ({error}).") from error
