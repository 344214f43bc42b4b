"""A real browser for tests, and what they need to look into a Plotly picture."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from autopeft.cli import _dashboard
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
#: Pictures of the pages as the tests saw them; not committed.
ARTEFACTS = ROOT / "test-artefacts" / "dashboard"


def find_browser() -> str:
    """Path of a Chromium; skips where there is none, but not in continuous integration."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    reason = "no Chromium on this machine (Debian: apt-get install chromium)"
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    raise AssertionError("unreachable")


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium that is driven by playwright."""
    path = find_browser()
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")
    with playwright.sync_playwright() as driver:
        # Chromium refuses its own sandbox to root.
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        found = driver.chromium.launch(executable_path=path, args=[*flags, "--disable-gpu"])
        try:
            yield found
        finally:
            found.close()


@contextmanager
def served(url: str, log: Path) -> Iterator[str]:
    """The dashboard on a database, as the command starts it; gives its address."""
    port = free_port()
    environment = {**os.environ, "AUTOPEFT_DB": url}
    with (
        log.open("wb") as file,
        subprocess.Popen(
            _dashboard.command_line("127.0.0.1", port), env=environment, stdout=file, stderr=subprocess.STDOUT
        ) as server,
    ):
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(f"{address}/_stcore/health")
            yield address
        finally:
            server.terminate()
            server.wait(30)


def _wait(address: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"{address} did not answer within two minutes")


def search_command(*words: str) -> list[str]:
    """The command line of this installation's ``autopeft``."""
    return [sys.executable, "-m", "autopeft.cli", *words]


#: Numbers of the trials whose points are in the first picture, marks and intervals apart.
_DRAWN = """() => {
    const plot = document.querySelector('.js-plotly-plot');
    if (!plot || !plot._fullData) return [];
    const roles = ['front', 'dominated', 'baseline', 'breaks budget or a constraint'];
    const chosen = plot._fullData.filter(trace => roles.includes(trace.name));
    return chosen.flatMap(trace => Array.from(trace.customdata));
}"""


def drawn(page: Any) -> list[int]:
    """Numbers of the trials whose points are in the first picture, ascending."""
    return sorted(int(number) for number in page.evaluate(_DRAWN))


def wait_for_points(page: Any, n: int = 1) -> list[int]:
    """Wait until the first picture shows so many trials; returns their numbers."""
    page.wait_for_function(f"n => ({_DRAWN})().length >= n", arg=n)
    return drawn(page)


def settled(page: Any) -> None:
    """Wait until the page's script has come to its end and the page shows that it is live."""
    page.get_by_text("Live: last looked").wait_for()
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()


def select_point(page: Any, number: int) -> None:
    """Click a trial's point until its trial is open: a picture that is just redrawn loses a click."""
    heading = page.get_by_role("heading", name=f"Trial {number}", exact=True)
    for _ in range(20):
        page.mouse.click(*place_of(page, number))
        with suppress(Exception):
            heading.wait_for(timeout=5000)
            return
    raise AssertionError(f"a click on the point of trial {number} opened nothing")


def place_of(page: Any, number: int) -> tuple[float, float]:
    """Where a trial's point is on the screen."""
    script = """number => {
        const plot = document.querySelector('.js-plotly-plot');
        plot.scrollIntoView({block: 'center'});
        const layout = plot._fullLayout, box = plot.getBoundingClientRect();
        for (const trace of plot._fullData) {
            const i = Array.from(trace.customdata || []).indexOf(number);
            if (i >= 0) return [
                box.left + layout.xaxis._offset + layout.xaxis.d2p(trace.x[i]),
                box.top + layout.yaxis._offset + layout.yaxis.d2p(trace.y[i]),
            ];
        }
    }"""
    x, y = page.evaluate(script, number)
    return float(x), float(y)


def answer_to(address: str, request: str) -> str:
    """The first line that a server answers to a request as it stands."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(request.encode())
        return connection.recv(4096).decode(errors="replace").splitlines()[0]
