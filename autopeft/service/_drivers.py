"""The processes that drive searches: started with what their environment has to know, stopped politely, found again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from autopeft.exceptions import MachineError
from autopeft.orchestrate import is_dead, is_here, local_pid, worker_id
from autopeft.service._tokens import TOKEN_FILE_VARIABLE, TOKEN_VARIABLE

#: Exit code of a search that was interrupted.
INTERRUPTED: Final = 130
_SETTINGS, _LOG, _OLD_LOG, _WORK = "settings.json", "driver.log", "driver.log.1", "work"
_MAX_LOG_BYTES: Final = 64 * 1024


class Drivers(Protocol):
    """Starts, watches and stops drivers."""

    def start(self, study: str, settings: Mapping[str, Any]) -> str:
        """Start a driver.

        Returns:
            Its process, as `worker_id` names it.

        Raises:
            MachineError: If it cannot be started.
        """
        ...

    def exit_code(self, study: str, process: str) -> int | None:
        """How a driver ended; None while it is alive.

        One that an earlier service started and that is gone has an unknown end: -1.
        """
        ...

    def stop(self, process: str, *, is_patient: bool) -> None:
        """Ask a driver to end, or kill it."""
        ...

    def last_error(self, study: str) -> str | None:
        """What a driver said last of why it failed; None if nothing."""
        ...

    def log(self, study: str, offset: int) -> tuple[str, int]:
        """What the latest driver said from an offset into its log on, and the offset behind it.

        An offset behind the end is 0, a negative one counts from there.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverCommand:
    """What every driver of a service is started with.

    Args:
        database: URL of the database.
        executor: Further words for `autopeft search`.
        data_dir: Folder with the named tasks' files; None for the hub.
        artifacts: Folder or URL that machines share; None for none.
    """

    database: str
    executor: Sequence[str] = ()
    data_dir: Path | None = None
    artifacts: str | None = None

    def words(self, settings: Path) -> list[str]:
        """The command line. -P: nothing of the folder it runs in is imported."""
        command = [sys.executable, "-P", "-m", "autopeft.cli", "search", "--config", str(settings)]
        return [*command, "--log-format", "json", *self.executor]

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """This process's environment, without the tokens; the database's URL may hold a password, which stays here."""
        kept = {key: value for key, value in base.items() if key not in (TOKEN_VARIABLE, TOKEN_FILE_VARIABLE)}
        kept |= {"AUTOPEFT_DB": self.database, "NO_COLOR": "1", "CI": kept.get("CI", "1")}
        # With a server, a driver would hand its search in again.
        for name in ("AUTOPEFT_SERVER", "AUTOPEFT_LOG_FORMAT", "AUTOPEFT_DATA_DIR", "AUTOPEFT_ARTIFACTS"):
            kept.pop(name, None)
        if self.data_dir is not None:
            kept["AUTOPEFT_DATA_DIR"] = str(self.data_dir)
        if self.artifacts is not None:
            kept["AUTOPEFT_ARTIFACTS"] = self.artifacts
        return kept


class ProcessDrivers:
    """Drivers as child processes, each with a folder for its settings and its log.

    They have sessions of their own: a service that is killed leaves them at work, and the next one finds them again.

    Args:
        folder: Where the folders are.
        command: What is started.
        is_driven: Whether somebody holds the right to drive a study. It decides about drivers of earlier services on
            other machines, in other containers, or before this machine was started last, which cannot be looked at.
    """

    def __init__(
        self, folder: Path, command: DriverCommand, *, is_driven: Callable[[str], bool] = lambda _: True
    ) -> None:
        self._folder = folder
        self._command = command
        self._is_driven = is_driven
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, study: str, settings: Mapping[str, Any]) -> str:
        folder = self._own(study)
        try:
            work = folder / _WORK
            work.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = folder / _SETTINGS
            path.write_text(json.dumps(dict(settings), indent=2), encoding="utf-8")
            path.chmod(0o600)
            if (folder / _LOG).exists():
                (folder / _LOG).replace(folder / _OLD_LOG)
            with (folder / _LOG).open("wb") as log:
                child = subprocess.Popen(  # noqa: S603  # our own words, no shell  # nosec B603
                    self._command.words(path),
                    cwd=work,
                    env=self._command.environment(os.environ),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    start_new_session=True,
                )
        except OSError as error:
            raise MachineError(f"the driver of {study} cannot be started: {error.strerror or error}.") from error
        process = worker_id(child.pid)
        self._children[process] = child
        return process

    def exit_code(self, study: str, process: str) -> int | None:
        child = self._children.get(process)
        if child is None:
            is_alive = not is_dead(process) if is_here(process) else self._is_driven(study)
            return None if is_alive else -1
        code = child.poll()
        if code is not None:
            del self._children[process]
        return code

    def stop(self, process: str, *, is_patient: bool) -> None:
        child = self._children.get(process)
        pid = child.pid if child is not None and child.poll() is None else local_pid(process)
        if pid is None:
            return
        try:
            os.kill(pid, signal.SIGTERM if is_patient else signal.SIGKILL)
        except ProcessLookupError:
            return

    def last_error(self, study: str) -> str | None:
        text, _ = self.log(study, -_MAX_LOG_BYTES)
        errors = [part for part in f"\n{text}".split("\nerror: ")[1:] if part]
        return errors[-1].rstrip("\n") if errors else None

    def log(self, study: str, offset: int) -> tuple[str, int]:
        try:
            with (self._own(study) / _LOG).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                start = max(size + offset, 0) if offset < 0 else offset if offset <= size else 0
                file.seek(start)
                # Only whole lines: half a character cannot be read, and half a line is no use.
                part = file.read(_MAX_LOG_BYTES)
        except OSError:
            return "", 0
        end = part.rfind(b"\n") + 1 if len(part) < _MAX_LOG_BYTES or b"\n" in part else len(part)
        lines = part[:end].decode("utf-8", "replace").split("\n")
        return "\n".join(_message(line) for line in lines), start + end

    def _own(self, study: str) -> Path:
        # Submitted names are plain, but this is where a path is made of one.
        if not study or "/" in study or study.startswith("."):
            raise MachineError(f"a study of a service has a plain name, but got {study!r}.")
        return self._folder / study


def _message(line: str) -> str:
    """What a line of a log says to people; what is no record was written by a library or a dying interpreter."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return line
    return str(record.get("message", line)) if isinstance(record, dict) else line
