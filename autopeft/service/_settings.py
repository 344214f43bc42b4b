"""What the operator of a service decides."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from autopeft.exceptions import UsageError
from autopeft.service._tokens import TokenBook

_MIB = 2**20


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """What the operator of a service decides.

    Args:
        database: URL of the database; its password reaches drivers by the environment alone.
        folder: Where uploads, settings and logs of searches are.
        tokens: Who may ask; None for everybody, which is allowed on loopback alone.
        host: Address to listen on.
        port: Port to listen on.
        max_active: Searches driven at once, >= 1.
        executor: Words that say where trials run, as `autopeft search` takes them: ``("--executor", "workers")``.
        data_dir: Folder with the named tasks' files; None for the hub.
        artifacts: Folder or URL where results are published and machines share files; None for none.
        allow_code: Whether searches may name Python rewards, pickled weights and code that comes with a backbone.
        max_upload_bytes: Largest file, >= 1.
        max_stored_bytes: All uploads of one caller together, >= 1.
        max_trials: Most trials that a search may ask for, >= 1.
        max_queued: Most searches of one caller that wait, >= 1.
        rate: Requests per second and caller, > 0.
        burst: Requests of a caller at once, >= 1.
        allowed_hosts: Names that a request may give for this machine; empty for any.
        tls_cert: Certificate chain; None for no TLS.
        tls_key: Its private key.
        grace_s: Seconds that a driver gets to put its trial back when it is stopped, > 0.

    Raises:
        UsageError: If what is asked for is not safe or not possible.
    """

    database: str = field(repr=False)
    folder: Path
    tokens: TokenBook | None = field(repr=False, default=None)
    host: str = "127.0.0.1"
    port: int = 8500
    max_active: int = 1
    executor: tuple[str, ...] = ()
    data_dir: Path | None = None
    artifacts: str | None = None
    allow_code: bool = False
    max_upload_bytes: int = 200 * _MIB
    max_stored_bytes: int = 2048 * _MIB
    max_trials: int = 10_000
    max_queued: int = 100
    rate: float = 20.0
    burst: int = 60
    allowed_hosts: tuple[str, ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    grace_s: float = 30.0

    def __post_init__(self) -> None:
        lows = ("max_active", "max_upload_bytes", "max_stored_bytes", "max_trials", "max_queued", "burst")
        for name in lows:
            if getattr(self, name) < 1:
                raise UsageError(f"--{name.replace('_', '-')} must be at least 1, but got {getattr(self, name)}.")
        if not self.rate > 0 or not self.grace_s > 0:
            raise UsageError(f"rate and grace must be positive, but got {self.rate:g} and {self.grace_s:g}.")
        if self.tokens is None and not self.is_local:
            raise UsageError(
                f"{self.host} can be reached from other machines, so a token is needed: set AUTOPEFT_API_TOKEN_FILE "
                "or give --token-file FILE (make a token with: openssl rand -hex 32), or listen on 127.0.0.1."
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError("TLS needs both --tls-cert FILE and --tls-key FILE.")
        for path in (self.tls_cert, self.tls_key):
            if path is not None and not path.is_file():
                raise UsageError(f"TLS file {path}: there is no such file.")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can ask."""
        return is_loopback(self.host)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names that a request may give for this machine; ``*`` is any."""
        if self.allowed_hosts:
            return self.allowed_hosts
        # A web page that gives its own name this machine's address could otherwise ask through its visitor's browser.
        return ("localhost", "127.0.0.1", "[::1]") if self.is_local else ("*",)
