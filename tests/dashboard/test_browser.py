"""End to end, in a real browser: a real search is watched, understood and taken away."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autopeft.store import open_store
from tests.dashboard.browser import ARTEFACTS, answer_to, browser, drawn, place_of, search_command, served
from tests.dashboard.studies import HOSTILE, full

pytestmark = pytest.mark.slow

PATIENCE_S = 240


def wait_until(is_so: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


def picture(page: Any, name: str) -> None:
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(ARTEFACTS / f"{name}.png"), timeout=120_000)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A page that may talk to this machine only, and notes who it tried to talk to."""
    context = chromium.new_context(viewport={"width": 1280, "height": 1000}, accept_downloads=True)
    context.set_default_timeout(PATIENCE_S * 1000)
    found = context.new_page()
    found.strangers = []
    found.on(
        "request",
        lambda request: (
            found.strangers.append(request.url)
            if not re.match(r"(https?|wss?)://127\.0\.0\.1|data:|blob:", request.url)
            else None
        ),
    )
    yield found
    context.close()


def test_a_real_search_is_watched_understood_and_taken_away(page: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    with served(url, tmp_path / "server.log") as address:
        page.goto(f"{address}/front")
        page.get_by_text("There is no study to show yet").wait_for()
        picture(page, "1-before-the-search")

        # Nothing is reloaded from here on: what the search writes appears by itself.
        command = search_command(
            *("search", "--task", "stdlib/topics", "--budget", "1%", "--trials", "6", "--train-examples", "150"),
            *(
                "--epochs",
                "1",
                "--no-baselines",
                "--seeds",
                "2",
                "--confirm-top",
                "1",
                "--study",
                "watched",
                "--db",
                url,
            ),
        )
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with (tmp_path / "search.log").open("wb") as log:
            search = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_until(lambda: drawn(page), "no point appeared")
            first = drawn(page)[0]
            picture(page, "2-first-point")

            page.mouse.click(*place_of(page, first))
            page.get_by_role("heading", name=f"Trial {first}", exact=True).wait_for()
            wait_until(lambda: f"trial={first}" in page.url, "the address does not name the trial")
            words = open_store(url).load_study("watched").trials[first].configuration.describe()
            assert page.get_by_text(words, exact=True).first.is_visible()

            page.locator("[data-testid=stMain]").evaluate("main => main.scrollTo(0, 350)")
            seen = drawn(page)
            wait_until(lambda: len(drawn(page)) > len(seen), "no further point appeared")
            heading = page.get_by_role("heading", name=f"Trial {first}", exact=True)
            assert heading.count() == 1, "the selection survives"
            assert page.locator("[data-testid=stMain]").evaluate("main => main.scrollTop") > 200, "the place survives"
            assert search.wait(PATIENCE_S * 2) == 0, (tmp_path / "search.log").read_text()[-2000:]
        finally:
            if search.poll() is None:
                search.terminate()
                search.wait(60)
        study = open_store(url).load_study("watched")
        headline = str(study.attributes["summary"]["headline"])
        page.get_by_text(headline, exact=True).wait_for()
        picture(page, "3-finished-with-a-trial-selected")

        another = page.context.new_page()
        another.goto(page.url)
        another.get_by_role("heading", name=f"Trial {first}", exact=True).wait_for()
        another.get_by_role("link", name="Its modules by layer").click()
        another.get_by_text("What good configurations tune").wait_for()
        wait_until(lambda: "/configuration" in another.url and f"trial={first}" in another.url, "the link lost its way")
        another.get_by_text("Rows are parts of a layer").wait_for()
        picture(another, "4-configuration")

        another.get_by_role("link", name="Trials", exact=True).first.click()
        with another.expect_download() as download:
            another.get_by_role("button", name="Download these trials as CSV").click()
        path = tmp_path / "trials.csv"
        download.value.save_as(path)
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [int(row["number"]) for row in rows] == [item.number for item in study.trials]
        for row, item in zip(rows, study.trials, strict=True):
            value = item.value("accuracy")
            assert row["state"] == item.state.value
            assert (float(row["accuracy"]) if row["accuracy"] else None) == (value and pytest.approx(value))
        picture(another, "5-trials")
        assert page.strangers == []
        assert "Traceback" not in (tmp_path / "server.log").read_text()


def test_brush_keyboard_and_text_that_wants_to_be_markup(page: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    full(url)
    with served(url, tmp_path / "server.log") as address:
        asked: list[str] = []
        page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
        page.goto(f"{address}/front?study=study&trial=1")
        page.get_by_role("heading", name="Trial 1", exact=True).wait_for()
        assert page.get_by_text(f"LoRA {HOSTILE}", exact=True).first.is_visible(), "letter by letter"
        wait_until(lambda: len(drawn(page)) == 8, "eight points")

        # A box around everything filters the table.
        plot = page.locator(".js-plotly-plot").first
        plot.scroll_into_view_if_needed()
        plot.hover()
        page.locator(".modebar-btn[data-title='Box Select']").first.click()
        box = page.locator(".js-plotly-plot .nsewdrag").first.bounding_box()
        page.mouse.move(box["x"] + 3, box["y"] + 3)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] - 3, box["y"] + box["height"] - 3, steps=6)
        page.mouse.up()
        page.get_by_text("9 trials in the brush.").wait_for()
        picture(page, "6-brush")
        page.get_by_role("button", name="Show all").click()
        page.get_by_text("3 trials on the front, cheapest first.").wait_for()

        # By keyboard alone: close the trial, then open the recommended one.
        page.get_by_role("button", name="Close").focus()
        page.keyboard.press("Enter")
        button = page.get_by_role("button", name="Open trial 5")
        button.wait_for()
        button.focus()
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Trial 5", exact=True).wait_for()

        # Pictures have names for those who do not see them.
        labels = page.locator("[data-testid=stPlotlyChart]").evaluate_all(
            "all => all.map(item => item.getAttribute('aria-label') "
            "|| item.querySelector('[aria-label]')?.getAttribute('aria-label'))"
        )
        assert labels
        assert all(labels), labels

        page.goto(f"{address}/trials?study=study&trial=9")
        page.get_by_text("Traceback ...").wait_for()
        picture(page, "7-failure")
        for name in ("insight", "health", "export", "configuration"):
            page.goto(f"{address}/{name}?study=study")
            page.get_by_text("Live: last looked").wait_for()
            picture(page, f"8-{name}")
        assert asked == [], "a script of a study ran"
        assert page.strangers == []


def test_phone_and_dark(chromium: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    full(url)
    with served(url, tmp_path / "server.log") as address:
        context = chromium.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark")
        page = context.new_page()
        page.set_default_timeout(PATIENCE_S * 1000)
        page.goto(f"{address}/front?study=study&trial=5")
        page.get_by_role("heading", name="Trial 5", exact=True).wait_for()
        wait_until(lambda: drawn(page), "no picture")
        wider = page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
        assert wider <= 0, "the page is wider than the phone"
        ground = page.evaluate("() => getComputedStyle(document.querySelector('.stApp')).backgroundColor")
        assert max(map(int, re.findall(r"\d+", ground)[:3])) < 60, ground
        picture(page, "9-phone-dark")
        context.close()


def test_only_this_machines_names_are_answered(tmp_path: Path) -> None:
    """A page elsewhere whose name was made to point here gets no connection."""
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    with served(url, tmp_path / "server.log") as address:
        port = address.rsplit(":", 1)[1]

        def ask(host: str, origin: str) -> str:
            return answer_to(
                address,
                f"GET /_stcore/stream HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            )

        assert "101" in ask(f"127.0.0.1:{port}", address)
        assert "403" in ask(f"evil.example:{port}", f"http://evil.example:{port}")
        assert "403" in ask(f"127.0.0.1:{port}", "http://evil.example")
