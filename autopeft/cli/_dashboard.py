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
from autopeft.cli._options import ArtifactsOption, DatabaseOption
from autopeft.cli._output import tell
from autopeft.exceptions import MachineError, UsageError
from autopeft.service import is_loopback

#: Said on the command line, so that no file in the user's or the working folder changes them.
_SAFE = (
    "--server.headless=true",
    "--server.enableXsrfProtection=true",
    "--server.enableCORS=true",
    "--server.fileWatcherType=none",
    "--browser.gatherUsageStats=false",
    "--client.showErrorDetails=none",
    "--client.toolbarMode=viewer",
    "--global.developmentMode=false",
)
#: A light and a dark theme, so that the browser's own choice between them holds.
_LOOKS = (
    "--theme.light.primaryColor=#0072B2",
    "--theme.dark.primaryColor=#56B4E9",
    "--theme.baseFontSize=14",
    *(f"--theme.headingFontSizes={size}rem" for size in (2, 1.6, 1.25)),
)

NoLoginOption = Annotated[
    bool,
    typer.Option("--no-login", help="Listen where other machines can reach it, though nobody is asked who they are."),
]


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
    where = [f"--server.address={host}", f"--server.port={port}"]
    if is_loopback(host):
        # A page of a stranger that gives its own name this machine's address could read everything through the browser.
        where += [f"--server.allowedHosts={name}" for name in ("localhost", "127.0.0.1", "::1")]
    return [sys.executable, str(dashboard_script().with_name("serve.py")), *where, *_SAFE, *_LOOKS]


def dashboard(
    db: DatabaseOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on; others than this machine's need --no-login.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8501,
    no_login: NoLoginOption = False,
    artifacts: ArtifactsOption = None,
) -> None:
    """Browse studies in the web browser; reads only. Ends with Ctrl-C."""
    if find_spec("streamlit") is None or find_spec("plotly") is None:
        raise MachineError("the dashboard needs Streamlit and Plotly; install them: pip install 'autopeft[dashboard]'.")
    if not is_loopback(host):
        risk = f"everyone who can reach {host} can read every study of this database, because there is no login"
        if not no_login:
            raise UsageError(
                f"{risk}. Listen on 127.0.0.1 and reach it by `ssh -L {port}:127.0.0.1:{port} MACHINE`, or put it "
                "behind a proxy or a firewall that lets nobody else in and say --no-login."
            )
        tell(f"Warning: {risk}.")
    # By the environment, because the process list shows arguments, and a URL may hold a password.
    environment = {**os.environ, "AUTOPEFT_DB": database_url(db)}
    if artifacts is not None:
        environment["AUTOPEFT_ARTIFACTS"] = artifacts
    code = subprocess.call(command_line(host, port), env=environment)  # noqa: S603  # our own words  # nosec B603
    raise typer.Exit(code)
