"""Reaching a Ray cluster, or starting one on this machine; never one that strangers can reach without a token.

Whoever reaches a Ray cluster runs code on it, so its only protection is its token. What a cluster asks for is found
out by asking it, with and without a token, before Ray itself is loaded: Ray reads its settings once, and words a
refused token as a cluster that is not there.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from autopeft.exceptions import MachineError, UsageError

NAMESPACE = "autopeft"
_CLIENT = "ray://"
_CLIENT_PORT = 10001
_TIMEOUT_S = 5.0
#: What any server of the kind answers, by the kind of its address.
_QUESTIONS = {"client": "/ray.rpc.RayletDriver/ClusterInfo", "gcs": "/ray.rpc.NodeInfoGcsService/GetClusterId"}
_ATTEMPTS = 4
#: A cluster starts a server for each client that comes by ray://, and gives up soon where the machine is busy.
_BUSY = "Starting Ray client server failed"
_INSTALL = "--executor ray needs Ray; install it on this machine and every node: pip install 'autopeft[ray]'."


class Answer(StrEnum):
    """How a cluster answers a request that carries a token or none."""

    WELCOME = "welcome"
    REFUSED = "refused"
    SILENT = "silent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a Ray cluster is.

    Args:
        text: As `ray.init` takes it.
        host: Name or address of the machine.
        port: Port there.
        kind: ``"client"`` or ``"gcs"``.
    """

    text: str
    host: str
    port: int
    kind: str

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False


def find_address(given: str, environment: Mapping[str, str] = os.environ) -> Address:
    """Read ``"auto"`` or ``"ray://host:port"``.

    ``auto`` is ``RAY_ADDRESS``, else the cluster that a node on this machine belongs to.

    Raises:
        UsageError: If it is neither.
        MachineError: If there is no cluster for ``auto`` to find.
    """
    text = given.strip()
    if text == "auto":
        text = environment.get("RAY_ADDRESS", "").strip() or _current_cluster(environment)
        if text == "auto":
            text = _current_cluster(environment)
    elif not text.startswith(_CLIENT):
        raise UsageError(f"--address is auto or ray://HOST:PORT, but got {given!r}.")
    kind = "client" if text.startswith(_CLIENT) else "gcs"
    host, colon, port = text.removeprefix(_CLIENT).rstrip("/").rpartition(":")
    if not colon and kind == "client":
        host, port = port, str(_CLIENT_PORT)
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"a Ray cluster's address is ray://HOST:PORT, but got {text!r}.")
    return Address(text=f"{_CLIENT if kind == 'client' else ''}{host}:{port}", host=host, port=int(port), kind=kind)


def _current_cluster(environment: Mapping[str, str]) -> str:
    file = Path(environment.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray" / "ray_current_cluster"
    try:
        found = file.read_text(encoding="utf-8").strip()
    except OSError:
        found = ""
    if not found:
        raise MachineError(
            "--address auto found no Ray cluster: no node runs on this machine and RAY_ADDRESS is not set. Start one "
            "with `ray start`, give --address ray://HOST:PORT, or leave --address out to start one here."
        )
    return found


def find_token(environment: Mapping[str, str] = os.environ) -> str | None:
    """The token, from where Ray takes it: RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token.

    Raises:
        MachineError: If the file is named but cannot be read or is empty.
    """
    if environment.get("RAY_AUTH_TOKEN"):
        return environment["RAY_AUTH_TOKEN"].strip()
    named = environment.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named).expanduser() if named else Path(environment.get("HOME") or "~").expanduser() / ".ray/auth_token"
    try:
        token = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        if named:
            reason = error.strerror or str(error)
            raise MachineError(f"the Ray token file {path} (RAY_AUTH_TOKEN_PATH) cannot be read: {reason}.") from error
        return None
    if named and not token:
        raise MachineError(f"the Ray token file {path} (RAY_AUTH_TOKEN_PATH) is empty.")
    return token or None


def ask(address: Address, token: str | None) -> Answer:
    """Ask a cluster something harmless.

    Raises:
        MachineError: If Ray's client is not installed.
    """
    require_ray()
    import grpc

    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(f"{address.host}:{address.port}") as channel:
        try:
            channel.unary_unary(_QUESTIONS[address.kind])(b"", timeout=_TIMEOUT_S, metadata=metadata)
        except grpc.RpcError as error:
            code = error.code()
            if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
                return Answer.REFUSED
            # Any other complaint comes from a server that would have listened.
            return Answer.SILENT if code in (
                grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED
            ) else Answer.WELCOME  # fmt: skip
    return Answer.WELCOME


def require_ray() -> None:
    """Say what to install.

    Raises:
        MachineError: If Ray or its client is not installed.
    """
    if find_spec("ray") is None or find_spec("grpc") is None:
        raise MachineError(_INSTALL)


def admitted(address: Address, environment: MutableMapping[str, str] = os.environ) -> None:
    """See that a cluster is there, lets this process in, and lets strangers out; set Ray's mode accordingly.

    Raises:
        MachineError: If not; the message says which and what to do.
    """
    if environment.get("RAY_USE_TLS", "0") == "1":
        # With certificates on both sides, nobody without one gets as far as being asked for a token.
        return
    answer = ask(address, None)
    if answer is Answer.SILENT:
        raise MachineError(
            f"no Ray cluster answers at {address.text}. Check the address and that the cluster runs (`ray status` on "
            "one of its machines), and that this machine reaches the port."
        )
    if answer is Answer.WELCOME:
        if not address.is_loopback:
            raise MachineError(
                f"the Ray cluster at {address.text} asks for no token: everyone who reaches it can run code on it and "
                "read what a search sends there. Start it again with RAY_AUTH_MODE=token and a token on every machine "
                "(`ray get-auth-token --generate`), then set RAY_AUTH_TOKEN_PATH here."
            )
        environment["RAY_AUTH_MODE"] = "disabled"
        return
    token = find_token(environment)
    if token is None:
        raise MachineError(
            f"the Ray cluster at {address.text} asks for a token; put it into a file and set RAY_AUTH_TOKEN_PATH to it."
        )
    if ask(address, token) is not Answer.WELCOME:
        raise MachineError(
            f"the Ray cluster at {address.text} does not accept the token that is given here (RAY_AUTH_TOKEN, "
            "RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token); take the one that the cluster was started with."
        )
    environment["RAY_AUTH_MODE"] = "token"


@contextlib.contextmanager
def connected(given: str | None, *, cpus: int | None = None) -> Iterator[Any]:
    """Be a driver of a Ray cluster as long as the block runs.

    Args:
        given: ``"auto"``, ``"ray://host:port"``, or None to start a cluster on this machine, which ends with the block.
        cpus: Cores of the cluster that is started; None for all.

    Yields:
        The module `ray`.

    Raises:
        UsageError: If the address cannot be read.
        MachineError: If there is no cluster, it does not let us in, or it could not be started.
    """
    require_ray()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Without it, Ray warns that it will one day leave this variable alone.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if given is None:
        with _started(cpus) as started:
            yield started
        return
    address = find_address(given)
    admitted(address)
    import ray

    _init(ray, address.text, address=address.text)
    try:
        yield ray
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _started(cpus: int | None) -> Iterator[Any]:
    """A cluster of this machine alone: loopback, a token of its own that is written nowhere, no web pages."""
    changed = {
        "RAY_AUTH_MODE": "token",
        # In the environment, for Ray's own processes: by default Ray would write one into the home folder.
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # Ray's constant for "this machine alone": every server then listens on the loopback interface.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # Engines are watched by their supervisors; Ray would end the supervisors, which hold nothing.
        "RAY_memory_monitor_refresh_ms": "0",
    }
    before = {name: os.environ.get(name) for name in (*changed, "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS")}
    os.environ.pop("RAY_AUTH_TOKEN_PATH", None)
    os.environ.pop("RAY_ADDRESS", None)
    os.environ.update(changed)
    # Paths of sockets must stay below about a hundred characters, and Ray adds about seventy.
    folder = tempfile.mkdtemp(prefix="aray-", dir=_short_folder())
    # Ray opens its own folder to everyone; the one around it stays private.
    inner = str(Path(folder) / "r")
    try:
        import ray

        _init(ray, "on this machine", num_cpus=cpus, include_dashboard=False, _temp_dir=inner)
        try:
            yield ray
        finally:
            ray.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _short_folder() -> str:
    folder = tempfile.gettempdir()
    # A private folder is made in it.
    short = "/tmp"  # noqa: S108  # nosec B108
    return folder if len(folder) <= 20 or not os.access(short, os.W_OK) else short


def _init(ray: Any, where: str, **options: Any) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        _try(lambda: ray.init(namespace=NAMESPACE, log_to_driver=False, logging_level="error", **options), where)
    finally:
        if threading.current_thread() is threading.main_thread():
            # Ray takes them over, and would end this process before it has given anything back.
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _try(connect: Callable[[], Any], where: str) -> None:
    for n_left in reversed(range(_ATTEMPTS)):
        try:
            connect()
            return
        except Exception as error:
            # Ray has an error class for each of its parts; what they have in common is that there is no cluster.
            reason = " ".join(str(error).split()) or type(error).__name__
            if n_left and _BUSY in reason:
                continue
            raise MachineError(f"Ray {where} cannot be used: {reason[-400:]}") from error


def hosts(ray: Any) -> set[str]:
    """Names of the machines of a connected cluster."""
    return {str(node["NodeManagerHostname"]) for node in ray.nodes() if node["Alive"]}


def is_elsewhere(ray: Any) -> bool:
    """Whether a connected cluster has other machines than this one."""
    return hosts(ray) != {socket.gethostname()}
