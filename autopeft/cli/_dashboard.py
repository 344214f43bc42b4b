"""``autopeft dashboard``: the Streamlit application on a database."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from autopeft.cli._environment import database_url
from autopeft.cli._options import DatabaseOption
from autopeft.exceptions import MachineError

_SAFE = (
    "--server.headless=true",
    "--browser.gatherUsageStats=false",
    "--client.showErrorDetails=none",
    "--client.toolbarMode=viewer",
    "--server.enableXsrfProtection=true",
    "--server.fileWatcherType=none",
)


def dashboard_script() -> Path:
    """The application's script: beside this package in the wheel, at the root of a checkout.

    Raises:
        MachineError: If it is in neither place.
    """
    package = Path(__file__).parents[1]
    for path in (package / "_dashboard" / "app.py", package.parent / "dashboard" / "app.py"):
        if path.exists():
            return path
    raise MachineError("the dashboard's files are missing from this installation; reinstall autopeft.")


def command_line(host: str, port: int) -> list[str]:
    """What is run: Streamlit with safe settings."""
    where = (f"--server.address={host}", f"--server.port={port}")
    return [sys.executable, "-m", "streamlit", "run", str(dashboard_script()), *where, *_SAFE]


def dashboard(
    db: DatabaseOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on; others than this machine only if you say so.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8501,
) -> None:
    """Browse studies in the web browser; reads only. Ends with Ctrl-C."""
    if find_spec("streamlit") is None or find_spec("plotly") is None:
        raise MachineError("the dashboard needs Streamlit and Plotly; install them: pip install 'autopeft[dashboard]'.")
    # By the environment, because the process list shows arguments, and a URL may hold a password.
    environment = {**os.environ, "AUTOPEFT_DB": database_url(db)}
    code = subprocess.call(command_line(host, port), env=environment)  # noqa: S603 (our own words, no shell)
    raise typer.Exit(code)
