"""Containers without an engine: the kernel's namespaces around the very commands of docker-compose.yml.

Each has a network address, a host name, processes, mounts and a user of its own; its root is read-only where the file
says so, its capabilities are dropped, its secrets lie in /run/secrets. What stands in for the image is this machine's
own system, with the Python environment of the tests and PostgreSQL's binaries on the PATH.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.deployment.compose import ROOT

_POSTGRES = "/var/lib/postgresql/18/docker"
#: Folders of this machine that a container does not see.
_COVERED = ("/home", "/root", "/var/lib", "/run")


def image_environment() -> dict[str, str]:
    """ENV of the Dockerfile's last stage."""
    last = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").rpartition("\nFROM ")[2]
    line = re.search(r"^ENV (.+)$", last, flags=re.M)
    assert line is not None
    return dict(word.split("=", 1) for word in shlex.split(line[1]))


def why_not() -> str | None:
    """Why namespaces cannot be used here; None if they can."""
    if os.geteuid() != 0:
        return "network namespaces need the rights of root"
    for program in ("ip", "unshare", "nsenter", "setpriv", "mount"):
        if shutil.which(program) is None:
            return f"the program {program} is not installed"
    name = f"apt{os.getpid()}"
    probe = f"ip netns add {name} && ip -n {name} link add br0 type bridge; e=$?; ip netns del {name}; exit $e"
    done = subprocess.run(["sh", "-c", probe], capture_output=True, text=True)
    return None if done.returncode == 0 else f"network namespaces are not allowed: {done.stderr.strip()}"


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"{shlex.join(words)}: {done.stderr}"


class Networks:
    """The networks of a compose file: a bridge each, in a namespace that nothing else uses.

    Args:
        names: Of the networks.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._tag = f"a{os.getpid() % 10_000}"
        self._names = list(names)
        self._made: list[str] = []
        self._count = 0
        self.hosts: dict[str, str] = {}
        self._switch = self._add("switch")
        for index in range(len(self._names)):
            self._in(self._switch, "link", "add", f"br{index}", "type", "bridge")
            self._in(self._switch, "link", "set", f"br{index}", "up")

    def join(self, host: str, networks: Sequence[str]) -> str:
        """Make a namespace with one address on each of the networks.

        Returns:
            Its name.
        """
        namespace = self._add(host)
        self._count += 1
        self._in(namespace, "link", "set", "lo", "up")
        for name in networks:
            index = self._names.index(name)
            inner, outer = f"eth{index}", f"{self._tag}v{self._count}n{index}"
            _run("ip", "link", "add", outer, "type", "veth", "peer", "name", f"{outer}i")
            _run("ip", "link", "set", outer, "netns", self._switch)
            _run("ip", "link", "set", f"{outer}i", "netns", namespace, "name", inner)
            self._in(self._switch, "link", "set", outer, "master", f"br{index}", "up")
            address = f"10.{89 + index}.0.{self._count + 1}"
            self._in(namespace, "addr", "add", f"{address}/24", "dev", inner)
            self._in(namespace, "link", "set", inner, "up")
            self.hosts.setdefault(host, address)
        return namespace

    def close(self) -> None:
        for name in self._made:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def _add(self, name: str) -> str:
        full = f"{self._tag}-{name}"
        _run("ip", "netns", "add", full)
        self._made.append(full)
        return full

    @staticmethod
    def _in(namespace: str, *words: str) -> None:
        _run("ip", "-n", namespace, *words)


@dataclass
class Container:
    """One container of a service.

    Args:
        name: Its host name.
        service: As the compose file has it, variables replaced.
        namespace: Of its network.
        folder: For its log and what it is made of.
        volumes: Folders of the named volumes.
        secrets: Files of the secrets.
        hosts: File with the names of all.
    """

    name: str
    service: Mapping[str, Any]
    namespace: str
    folder: Path
    volumes: Mapping[str, Path]
    secrets: Mapping[str, Path]
    hosts: Path
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def is_database(self) -> bool:
        return str(self.service["image"]).startswith("postgres:")

    @property
    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def environment(self) -> dict[str, str]:
        """What the image and the compose file set; only the PATH is this machine's."""
        own = {"PGDATA": _POSTGRES, "HOME": "/tmp"} if self.is_database else image_environment()
        own |= {key: str(value) for key, value in self.service.get("environment", {}).items()}
        programs = [str(Path(sys.executable).parent), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin")))]
        found = shutil.which("initdb")
        programs += [str(Path(found).resolve().parent)] if found else []
        own |= {"PATH": ":".join([*programs, "/usr/local/bin", "/usr/bin", "/bin"]), "LANG": "C.UTF-8"}
        # The image has the wheel installed; the workers' package of a checkout lies beside autopeft.
        return own if self.is_database else {**own, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start(self) -> None:
        self.folder.mkdir(parents=True)
        script = self.folder / "start.sh"
        script.write_text(self._script())
        flags = ["--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, "unshare", *flags, "sh", "-eu", str(script)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(self, words: Sequence[str], timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as the container's user."""
        command = ["nsenter", f"--target={self._first()}", "--mount", "--uts", "--ipc", "--net", "--pid"]
        command += [*self._as_user(), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, cwd="/")

    def is_healthy(self) -> bool:
        check = self.service["healthcheck"]
        try:
            return self.run(check["test"][1:], timeout_s=30).returncode == 0
        except (subprocess.TimeoutExpired, AssertionError):
            return False

    def wait(self, timeout_s: float) -> int:
        assert self.process is not None
        return self.process.wait(timeout_s)

    def stop(self, *, grace_s: float) -> float:
        """End it as `docker stop` does.

        Returns:
            Seconds that it took.
        """
        start = time.monotonic()
        if self.process is None or self.process.poll() is not None:
            return 0.0
        with contextlib.suppress(AssertionError, ProcessLookupError):
            os.kill(self._first(), signal.SIGTERM)
        try:
            self.process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        return time.monotonic() - start

    def _first(self) -> int:
        """The container's first process, as this machine numbers it."""
        assert self.process is not None
        assert self.process.poll() is None, f"{self.name} has ended: {self.log[-3000:]}"
        for child in psutil.Process(self.process.pid).children(recursive=True):
            if Path(f"/proc/{child.pid}/ns/pid").readlink() != Path("/proc/self/ns/pid").readlink():
                return child.pid
        raise AssertionError(f"{self.name} has not begun")

    def _as_user(self) -> list[str]:
        user, group = str(self.service["user"]).split(":")
        flags = [f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs"]
        flags += ["--bounding-set=-all", "--inh-caps=-all"]
        words = ["setpriv", *flags, "env", "-i"]
        return words + [f"{key}={value}" for key, value in self.environment().items()]

    def _script(self) -> str:
        """What the engine does before the command, and an init that ends when the command does."""
        lines = [
            "mount --make-rprivate /",
            f"hostname {self.name}",
            *_bound(self.hosts, "/etc/hosts"),
            *_bound(self._passwd(), "/etc/passwd"),
            *self._covers(),
            "mkdir -p /run/secrets",
        ]
        for name in self.service.get("secrets", ()):
            lines += [f"touch /run/secrets/{name}", *_bound(self.secrets[name], f"/run/secrets/{name}")]
        for item in self.service.get("volumes", ()):
            volume, path = item.split(":")
            lines += [f"mkdir -p {path}", *_bound(self.volumes[volume], path)]
        for item in self.service["tmpfs"]:
            lines += self._tmpfs(*item.split(":"))
        size = str(self.service.get("shm_size", "64m")).removesuffix("b")
        lines.append(f"mount -t tmpfs -o mode=1777,size={size} tmpfs /dev/shm")
        if self.service["read_only"]:
            lines += [f"mount -o remount,ro,bind {path}" for path in (*_COVERED, "/")]
        command = shlex.join([*self._as_user(), *self._command()])
        return "\n".join([*lines, "cd /", f"{command} &", _INIT, ""])

    def _command(self) -> list[str]:
        words = [str(word) for word in self.service["command"]]
        return ["sh", "-euc", _ENTRYPOINT, "entrypoint", *words] if self.is_database else words

    def _passwd(self) -> Path:
        user, group = str(self.service["user"]).split(":")
        path = self.folder / "passwd"
        path.write_text(f"{Path('/etc/passwd').read_text()}service:x:{user}:{group}::/home/autopeft:/bin/sh\n")
        return path

    def _covers(self) -> list[str]:
        """Empty folders over those of this machine, but for what stands in for the image."""
        lines = []
        for place in _COVERED:
            lines += [f"mkdir -p {self.folder}/cover", f"mount -t tmpfs -o mode=755 tmpfs {self.folder}/cover"]
            lines += self._kept(place, f"{self.folder}/cover")
            lines += [f"mount --rbind {self.folder}/cover {place}", f"umount -l {self.folder}/cover"]
        return lines

    def _tmpfs(self, path: str, options: str) -> list[str]:
        cover = f"{self.folder}/tmpfs"
        # Through a second name: what is needed of this machine's own folder must still be found.
        return [
            f"mkdir -p {cover} {'' if path == '/tmp' else path}",
            f"mount -t tmpfs -o {options} tmpfs {cover}",
            *self._kept(path, cover),
            f"mount --rbind {cover} {path}",
        ]

    def _kept(self, place: str, cover: str) -> list[str]:
        lines = []
        for needed in (Path(sys.prefix), Path(sys.base_prefix), ROOT):
            if needed.is_relative_to(place) and str(needed) != place:
                inner = f"{cover}/{needed.relative_to(place)}"
                lines += [f"mkdir -p {inner}", f"mount --rbind {needed} {inner}"]
        return lines


#: Hands the engine's signal on, and ends with the command's code.
_INIT = """
child=$!
trap 'kill -TERM $child 2>/dev/null || true' TERM INT
code=0
while kill -0 $child 2>/dev/null; do wait $child && code=0 || code=$?; done
exit $code
"""

#: What the entry point of PostgreSQL's image does with a new volume.
_ENTRYPOINT = """
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p "$PGDATA"
    eval "initdb -D '$PGDATA' --username='$POSTGRES_USER' --pwfile='$POSTGRES_PASSWORD_FILE' $POSTGRES_INITDB_ARGS"
    echo "CREATE DATABASE $POSTGRES_DB" | postgres --single -D "$PGDATA" postgres
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    echo "listen_addresses = '*'" >> "$PGDATA/postgresql.conf"
    echo "unix_socket_directories = '/var/run/postgresql'" >> "$PGDATA/postgresql.conf"
fi
exec "$@"
"""


def _bound(source: Path, target: str) -> list[str]:
    return [f"mount --bind {shlex.quote(str(source))} {target}"]


@contextlib.contextmanager
def networks(names: Sequence[str]) -> Iterator[Networks]:
    """Networks that are gone when the block ends."""
    made = Networks(names)
    try:
        yield made
    finally:
        made.close()
