"""Take the two pictures of the dashboard in the README and in docs/dashboard.md, of a real search.

    python docs/take_screenshots.py                                  # runs two searches first, in about half an hour
    python docs/take_screenshots.py --db studies.db --study NAME     # of a search that has been run

It needs Chromium and playwright (extra ``dev``).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.dashboard.browser import browser, served, settled, wait_for_points  # noqa: E402

COMMON = (
    *("search", "--task", "stdlib/topics", "--budget", "1%"),
    *("--fidelity", "auto", "--train-examples", "600", "--epochs", "2"),
)
#: The search on the pictures, and the same at random, which the dashboard draws beside it.
SEARCHES = (
    (*COMMON, "--study", "topics", "--trials", "36", "--confirm-top", "3"),
    (
        *COMMON,
        *("--study", "topics-random", "--sampler", "random", "--trials", "24", "--confirm-top", "0", "--no-baselines"),
    ),
)
WIDTH = 1280


def main() -> None:
    """Search if need be, serve, take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--db", help="URL or SQLite file with the search")
    parser.add_argument("--study", help="its name; the one with the latest activity if left out")
    parser.add_argument("--trial", type=int, help="trial on the configuration's picture; the knee if left out")
    parser.add_argument("--height", type=int, default=900, help="most pixels of height")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="folder for the pictures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="autopeft-pictures-") as folder:
        url = arguments.db
        if url is None:
            url = str(Path(folder) / "studies.db")
            for words in SEARCHES:
                subprocess.run([sys.executable, "-m", "autopeft.cli", *words, "--db", url], check=True)  # noqa: S603
            arguments.study = "topics"
        whole = url if "://" in url else f"sqlite:///{Path(url).resolve()}"
        with served(whole, Path(folder) / "server.log") as address, browser() as chromium:
            take(chromium, address, arguments)


def take(chromium: Any, address: str, arguments: argparse.Namespace) -> None:
    """Take both pictures."""
    context = chromium.new_context(viewport={"width": WIDTH, "height": 860}, color_scheme="light")
    page = context.new_page()
    page.set_default_timeout(300_000)
    study = f"study={arguments.study}" if arguments.study else ""
    page.goto(f"{address}/front?{study}")
    page.get_by_text("What to take").wait_for()
    wait_for_points(page)
    settled(page)
    page.mouse.move(0, 0)
    save(page, arguments.output / "dashboard-front.png", arguments.height)
    trial = arguments.trial
    if trial is None:
        # The second button names the front's knee.
        label = page.get_by_role("button", name="Open trial").last.inner_text()
        trial = int(label.split()[-1])
    page.goto(f"{address}/configuration?{study}&trial={trial}")
    page.get_by_text("What good configurations tune").wait_for()
    save(page, arguments.output / "dashboard-configuration.png", arguments.height)
    context.close()


def save(page: Any, path: Path, most: int) -> None:
    """A picture of as much of the page as there is, up to a height in pixels."""
    settled(page)
    height = page.evaluate("() => document.querySelector('[data-testid=stMain]').scrollHeight")
    page.set_viewport_size({"width": WIDTH, "height": min(height, most)})
    # Pictures are drawn anew for the new size; nothing on the page says when they are.
    page.wait_for_timeout(2000)
    page.screenshot(path=str(path), timeout=120_000)
    print(path)


if __name__ == "__main__":
    main()
