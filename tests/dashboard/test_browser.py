"""End to end, in a real browser: a real search is watched, understood and taken away.

Nothing here waits for a time to pass: every wait is for what the page shows, and long enough for a machine that has
other things to do. Pictures of what the tests saw are kept in ``test-artefacts/dashboard``.
"""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from autopeft.exceptions import NotFoundError, StoreError
from autopeft.store import StudyReader, open_store
from autopeft.study import Study, TrialKind
from benchmarks.dashboard import fill
from dashboard.queries import add_roles, measured, trials_frame
from tests.dashboard.browser import (
    ARTEFACTS,
    answer_to,
    browser,
    drawn,
    search_command,
    select_point,
    served,
    settled,
    wait_for_points,
)
from tests.dashboard.studies import HOSTILE, draft, full, lora, params, run

pytestmark = pytest.mark.slow

PATIENCE_S = 300
PAGES = ("", "front", "configuration", "trials", "insight", "health", "export")
SEARCH = (
    *("search", "--task", "stdlib/topics", "--budget", "1%", "--study", "watched", "--no-baselines"),
    *("--trials", "5", "--train-examples", "100", "--epochs", "1", "--seeds", "2", "--confirm-top", "1"),
)


def picture(page: Any, name: str) -> None:
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(ARTEFACTS / f"{name}.png"), timeout=PATIENCE_S * 1000)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, chromium: Any) -> Iterator[str]:
    """The dashboard on a study that has everything; read only."""
    folder = tmp_path_factory.mktemp("site")
    url = f"sqlite:///{folder / 'studies.db'}"
    full(url)
    with served(url, folder / "server.log") as address:
        yield address
    assert "Traceback" not in (folder / "server.log").read_text()


@contextmanager
def opened(chromium: Any, **options: Any) -> Iterator[Any]:
    """A page that may talk to this machine only, and must not run what a study says."""
    context = chromium.new_context(**{"viewport": {"width": 1280, "height": 1000}, "accept_downloads": True, **options})
    context.set_default_timeout(PATIENCE_S * 1000)
    page = context.new_page()
    strangers, asked = [], []
    ours = re.compile(r"(https?|wss?)://127\.0\.0\.1|data:|blob:")

    def note(request: Any) -> None:
        if not ours.match(request.url):
            strangers.append(request.url)

    context.on("request", note)
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    try:
        yield page
    finally:
        context.close()
    assert strangers == [], "something was asked for elsewhere"
    assert asked == [], "a script of a study ran"


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    with opened(chromium) as found:
        yield found


def test_a_real_search_is_watched_understood_and_taken_away(page: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    log = tmp_path / "search.log"
    with served(url, tmp_path / "server.log") as address:
        page.goto(f"{address}/front")
        page.get_by_text("There is no study to show yet").wait_for()
        picture(page, "1-before-the-search")

        # Nothing is reloaded from here on: what the search writes appears by itself.
        with log.open("wb") as file:
            search = subprocess.Popen(
                search_command(*SEARCH, "--db", url), env=environment, stdout=file, stderr=subprocess.STDOUT
            )
        try:
            first = watch(page, url, search)
            assert search.wait(PATIENCE_S) == 0, log.read_text()[-2000:]
        finally:
            if search.poll() is None:
                search.send_signal(signal.SIGCONT)
                search.terminate()
                search.wait(60)
        study = open_store(url).load_study("watched")
        page.get_by_text(str(study.attributes["summary"]["headline"]), exact=True).wait_for()
        assert set(wait_for_points(page)) >= {item.number for item in study.trials[:1]}
        picture(page, "3-finished-with-a-trial-selected")
        take_away(page, study, first, tmp_path)
    assert "Traceback" not in (tmp_path / "server.log").read_text()


def pause_after_a_trial(search: subprocess.Popen[bytes], url: str) -> None:
    """Hold a search that may be faster than the page: more trials must be to come."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        assert search.poll() is None
        assert time.monotonic() < deadline
        with suppress(NotFoundError, StoreError):  # the search has not made it yet
            if any(item.state.is_finished for item in open_store(url).load_study("watched").trials):
                search.send_signal(signal.SIGSTOP)
                return
        time.sleep(0.05)


def watch(page: Any, url: str, search: subprocess.Popen[bytes]) -> int:
    """Points appear; one is selected, and stays selected while more of them come. Returns its number."""
    pause_after_a_trial(search, url)
    first = wait_for_points(page)[0]
    picture(page, "2-first-point")
    select_point(page, first)
    page.wait_for_url(re.compile(rf"trial={first}\b"))
    words = open_store(url).load_study("watched").trials[first].configuration.describe()
    page.get_by_text(words, exact=True).first.wait_for()

    main = page.locator("[data-testid=stMain]")
    main.evaluate("main => main.scrollTo(0, 350)")
    n_before = len(drawn(page))
    search.send_signal(signal.SIGCONT)
    wait_for_points(page, n_before + 1)
    assert page.get_by_role("heading", name=f"Trial {first}", exact=True).count() == 1, "the selection survives"
    assert main.evaluate("main => main.scrollTop") > 200, "the place survives"
    return first


def take_away(page: Any, study: Study, first: int, folder: Path) -> None:
    """The link works in a new tab, leads on to the configuration, and the trials can be downloaded."""
    another = page.context.new_page()
    another.goto(page.url)
    another.get_by_role("heading", name=f"Trial {first}", exact=True).wait_for()
    another.get_by_role("link", name="Its modules by layer").click()
    another.get_by_text("Rows are parts of a layer").wait_for()
    another.get_by_text("What good configurations tune").wait_for()
    another.wait_for_url(re.compile(rf"/configuration\?.*trial={first}\b"))
    settled(another)
    picture(another, "4-configuration")

    another.get_by_role("link", name="Trials", exact=True).first.click()
    settled(another)
    with another.expect_download() as download:
        another.get_by_role("button", name="Download these trials as CSV").click()
    path = folder / "trials.csv"
    download.value.save_as(path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["number"]) for row in rows] == [item.number for item in study.trials]
    for row, item in zip(rows, study.trials, strict=True):
        value = item.value("accuracy")
        assert row["state"] == item.state.value
        assert (float(row["accuracy"]) if row["accuracy"] else None) == (value and pytest.approx(value))
    picture(another, "5-trials")


def test_a_brush_filters_the_table_and_text_is_never_markup(page: Any, site: str) -> None:
    page.goto(f"{site}/front?study=study&trial=1")
    page.get_by_role("heading", name="Trial 1", exact=True).wait_for()
    assert page.get_by_text(f"LoRA {HOSTILE}", exact=True).first.is_visible(), "letter by letter"
    assert len(wait_for_points(page, 8)) == 8
    settled(page)

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


def drag(page: Any, corners: list[list[float]], chart: str = ".js-plotly-plot") -> None:
    """Draw over a picture from corner to corner, given at values of its axes."""
    script = """(plot, corners) => {
        plot.scrollIntoView({block: 'center'});
        const layout = plot._fullLayout, box = plot.getBoundingClientRect();
        return corners.map(([x, y]) => [
            box.left + layout.xaxis._offset + layout.xaxis.d2p(x), box.top + layout.yaxis._offset + layout.yaxis.d2p(y),
        ]);
    }"""
    places = page.locator(chart).first.evaluate(script, corners)
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=6)
    page.mouse.up()


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory, chromium: Any) -> Iterator[tuple[str, StudyReader]]:
    """The dashboard on a study of more trials than are drawn, and a reader of its database."""
    folder = tmp_path_factory.mktemp("crowd")
    url = f"sqlite:///{folder / 'studies.db'}"
    fill(url, n_studies=1, n_trials=4000)
    with served(url, folder / "server.log") as address:
        yield address, StudyReader(url)
    assert "Traceback" not in (folder / "server.log").read_text()


@pytest.mark.parametrize("tool", ["Box Select", "Lasso Select"])
def test_a_brush_knows_trials_that_are_not_drawn(page: Any, crowd: tuple[str, StudyReader], tool: str) -> None:
    """Oracle: the stored trials."""
    address, reader = crowd
    page.goto(f"{address}/front?study=study-00")
    settled(page)
    page.get_by_text(re.compile(r"[\d,]+ of 3,9\d\d points are drawn")).wait_for()
    n_drawn = len(wait_for_points(page))
    assert n_drawn < 2200
    page.locator(".js-plotly-plot").first.hover()
    page.locator(f".modebar-btn[data-title='{tool}']").first.click()
    settled(page)
    # A triangle or box between these values; straight lines on the picture are not straight in parameters.
    low, high = (2e5, 0.74), (9e5, 0.79)
    if tool == "Box Select":
        drag(page, [[low[0], low[1]], [high[0], high[1]]])
    else:
        drag(page, [[low[0], low[1]], [low[0], high[1]], [high[0], high[1]], [high[0], low[1]], [low[0], low[1]]])
    found = page.get_by_text(re.compile(r"[\d,]+ trials in the brush"))
    found.wait_for()
    n = int(found.inner_text().split()[0].replace(",", ""))
    frame = add_roles(trials_frame(reader, "study-00", ["accuracy"]), reader.overview("study-00").spec)
    rows = frame[frame["role"].notna()]
    expected = rows["trainable_parameters"].between(low[0], high[0]) & rows["accuracy"].between(low[1], high[1])
    assert n == pytest.approx(int(expected.sum()), abs=25), "the pixels of the corners apart"
    assert n > 700
    picture(page, f"6-{tool.split()[0].lower()}-in-a-crowd")


def test_a_point_of_a_crowd_opens_its_trial(page: Any, crowd: tuple[str, StudyReader]) -> None:
    page.goto(f"{crowd[0]}/front?study=study-00")
    settled(page)
    baseline = next(number for number in wait_for_points(page) if number < 10)
    select_point(page, baseline)
    page.wait_for_url(re.compile(rf"trial={baseline}\b"))


def test_lines_are_brushed(page: Any, crowd: tuple[str, StudyReader]) -> None:
    """Oracle: the stored points; the axis of a switch, brushed at its upper end, is that of the trials that have it."""
    address, reader = crowd
    page.goto(f"{address}/insight?study=study-00")
    settled(page)
    chart = "[class*=st-key-wide-parallel] .js-plotly-plot"
    page.locator(chart).wait_for()
    names = page.locator(chart).evaluate("plot => Array.from(plot._fullLayout.xaxis.ticktext)")
    axis, name = next((i, name) for i, name in enumerate(names) if name.startswith("layer_"))
    drag(page, [[axis, 0.8], [axis, 1.06]], chart)
    found = page.get_by_text(re.compile(r"[\d,]+ of [\d,]+ trials pass the brush"))
    found.wait_for()
    n, n_all = (int(word.replace(",", "")) for word in re.findall(r"[\d,]*\d", found.inner_text())[:2])
    rows = measured(trials_frame(reader, "study-00", ["accuracy"]), ["accuracy"], TrialKind.SEARCH).tail(3000)
    points = reader.params("study-00", rows["number"].tolist())
    assert (n, n_all) == (sum(item[name] for item in points.values()), len(points))
    picture(page, "6-lines-brushed")
    page.get_by_role("button", name="Show all lines").click()
    found.wait_for(state="detached")


def test_a_page_without_pictures_has_them_loaded_ahead(page: Any, crowd: tuple[str, StudyReader]) -> None:
    page.goto(crowd[0])
    settled(page)
    loaded = "() => performance.getEntriesByType('resource').some(item => item.name.includes('PlotlyChart'))"
    page.wait_for_function(loaded)
    page.wait_for_function("() => !document.querySelector('.st-key-ahead')")
    assert page.get_by_text("Select a row to open the study").is_visible()


def test_by_keyboard_alone(page: Any, site: str) -> None:
    page.goto(f"{site}/front?study=study&trial=1")
    settled(page)
    page.get_by_role("button", name="Close").focus()
    page.keyboard.press("Enter")
    button = page.get_by_role("button", name="Open trial 5")
    button.wait_for()
    button.focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Trial 5", exact=True).wait_for()
    settled(page)

    # The table of the front: trials 2, 3 and 5.
    page.get_by_text("3 trials on the front, cheapest first.").wait_for()
    page.locator("[data-testid=stDataFrame] canvas[data-testid=data-grid-canvas]").last.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+Space")
    page.wait_for_url(re.compile(r"trial=[23]\b"))

    # Pictures have names for those who do not see them.
    labels = page.locator("[data-testid=stPlotlyChart]").evaluate_all(
        "all => all.map(item => item.getAttribute('aria-label') "
        "|| item.querySelector('[aria-label]')?.getAttribute('aria-label'))"
    )
    assert labels
    assert all(labels), labels


def test_every_page_has_its_picture(page: Any, site: str) -> None:
    page.goto(f"{site}/trials?study=study&trial=9")
    page.get_by_text("Traceback ...").wait_for()
    picture(page, "7-failure")
    page.goto(f"{site}/configuration?study=study&trial=5&with=1")
    page.get_by_text("Only cells that differ").wait_for()
    settled(page)
    picture(page, "7-two-trials")
    for name in PAGES:
        page.goto(f"{site}/{name}?study=study")
        settled(page)
        picture(page, f"8-{name or 'studies'}")


def test_phone_and_dark(chromium: Any, site: str) -> None:
    with opened(chromium, viewport={"width": 390, "height": 800}, color_scheme="dark") as page:
        for name in PAGES:
            page.goto(f"{site}/{name}?study=study&trial=5")
            settled(page)
            wider = page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
            assert wider <= 0, f"the page {name} is wider than the phone"
            ground = page.evaluate("() => getComputedStyle(document.querySelector('.stApp')).backgroundColor")
            assert max(map(int, re.findall(r"\d+", ground)[:3])) < 60, ground
            picture(page, f"9-phone-dark-{name or 'studies'}")


def test_filters_and_selection_survive_new_trials_and_a_database_that_goes_away(page: Any, tmp_path: Path) -> None:
    path = tmp_path / "studies.db"
    full(f"sqlite:///{path}")
    with served(f"sqlite:///{path}", tmp_path / "server.log") as address:
        page.goto(f"{address}/trials?study=study")
        settled(page)
        page.get_by_role("textbox", name="Search", exact=True).fill("host")
        page.keyboard.press("Enter")
        page.get_by_text("14 of 15 trials.").wait_for()
        page.locator("canvas[data-testid=data-grid-canvas]").first.focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Shift+Space")
        page.wait_for_url(re.compile(r"trial=\d+"))
        number = int(re.search(r"trial=(\d+)", page.url)[1])  # type: ignore[index]
        page.get_by_role("heading", name=f"Trial {number}", exact=True).wait_for()

        with open_store(f"sqlite:///{path}") as store:
            run(store, draft(lora(2, 0.005), 700, params=params(2)), 0.72)
        page.get_by_text("15 of 16 trials.").wait_for()
        assert page.get_by_role("textbox", name="Search", exact=True).input_value() == "host"
        assert page.get_by_role("heading", name=f"Trial {number}", exact=True).count() == 1

        away = path.with_suffix(".away")
        path.rename(away)
        page.get_by_text("The database that was here is gone").wait_for()
        picture(page, "10-away")
        away.rename(path)
        page.get_by_text("16 trials.").wait_for()
        page.get_by_role("heading", name=f"Trial {number}", exact=True).wait_for()
    assert "Traceback" not in (tmp_path / "server.log").read_text()


def test_only_this_machines_names_are_answered(site: str) -> None:
    """A page elsewhere whose name was made to point here gets no connection."""
    port = site.rsplit(":", 1)[1]

    def ask(host: str, origin: str) -> str:
        return answer_to(
            site,
            f"GET /_stcore/stream HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )

    assert "101" in ask(f"127.0.0.1:{port}", site)
    assert "403" in ask(f"evil.example:{port}", f"http://evil.example:{port}")
    assert "403" in ask(f"127.0.0.1:{port}", "http://evil.example")
