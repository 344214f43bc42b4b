"""A worker as a Ray actor: a supervisor in a thread, and little else; Ray places it, the store tells it what to do."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import platformdirs

from autopeft.store import open_store

from .settings import WorkerSettings
from .supervisor import Supervisor

_logger = logging.getLogger("autopeft.worker")

#: Where the workers of a machine find the database, if that is not where the search finds it.
DATABASE_VARIABLE = "AUTOPEFT_WORKER_DB"
_DRAIN_POLL_S = 1.0


class RayWorker:
    """Runs one supervisor until it is asked to stop or has been idle for long.

    Args:
        url: Database, as the search knows it.
        settings: What the worker is started with.
        home: Host whose folders the settings name.
    """

    def __init__(self, url: str, settings: WorkerSettings, home: str) -> None:
        logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
        _logger.setLevel(logging.INFO)
        self._store = open_store(os.environ.get(DATABASE_VARIABLE) or url)
        own = replace(
            settings,
            cache_dir=cache_folder(settings.cache_dir, home),
            artifacts=os.environ.get("AUTOPEFT_ARTIFACTS") or settings.artifacts,
        )
        self._supervisor = Supervisor(self._store, own)
        self._failure: str | None = None
        self._leave: Callable[[], None] = _leaver()
        _on_term(self._supervisor.stop)
        # The engine ends with the thread that starts it, and actors' methods run in a thread that stays.
        self._thread = threading.Thread(target=self._run, name="autopeft-supervisor", daemon=True)
        self._thread.start()
        threading.Thread(target=self._watch_node, name="autopeft-drain", daemon=True).start()

    def id(self) -> str:
        """Under which the store knows this worker."""
        return self._supervisor.id

    def stop(self) -> bool:
        """Give back what it holds and end.

        Returns:
            Whether that was done in time.
        """
        self._supervisor.stop()
        self._thread.join(timeout=15)
        return not self._thread.is_alive()

    def _watch_node(self) -> None:
        """A node that is asked to end kills its actors without a word, but says before that it is being drained."""
        while self._thread.is_alive():
            if is_draining():
                _logger.info("the node is being drained; what this worker holds is given back.")
                self._supervisor.stop()
                return
            time.sleep(_DRAIN_POLL_S)

    def _run(self) -> None:
        try:
            self._supervisor.run()
        except Exception:
            _logger.exception("the worker ends.")
        finally:
            self._store.close()
            self._leave()


def is_draining() -> bool:
    """Whether the node of this actor was asked to end; False where this version of Ray does not say."""
    import ray

    try:
        return ray.get_runtime_context().get_node_id() in ray._private.state.state.get_draining_nodes()
    except Exception:
        # Whatever keeps Ray from answering also ends this actor, or is over at the next look.
        return False


def cache_folder(given: Path, home: str) -> Path:
    """Folder of the caches: below this machine's AUTOPEFT_HOME if set, else the search's own if it is its machine."""
    if os.environ.get("AUTOPEFT_HOME"):
        return Path(os.environ["AUTOPEFT_HOME"]).expanduser() / "cache"
    if socket.gethostname() == home:
        return given
    return Path(platformdirs.user_cache_dir("autopeft", appauthor=False))


def _leaver() -> Callable[[], None]:
    """Ends this actor for good, from whatever thread; made in the actor's own, which alone knows who it is."""
    import ray

    me: Any = ray.get_runtime_context().current_actor
    return lambda: ray.kill(me)


def _on_term(stop: Callable[[], None]) -> None:
    """A node that is asked to end gives its trials back; Ray's own handler would end the process at once."""
    try:
        signal.signal(signal.SIGTERM, lambda *_: stop())
    except ValueError:
        _logger.info("signals reach another thread; what this worker holds is found by its lease.")
