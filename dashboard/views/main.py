"""The frame around every page: navigation, the choice of the study, liveness, and messages instead of tracebacks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from autopeft.exceptions import AutoPeftError, NotFoundError
from autopeft.store import StudyOverview, StudyReader

from .. import figures
from . import _cache, _links, _live, configuration, export, front, health, insight, studies, trials
from ._study import Open

_ICON = Path(__file__).parents[1] / "icon.png"
#: Streamlit leaves room around every page that is better used; on a phone, wide pictures are scrolled, not squeezed.
_STYLE = """<style>
[data-testid='stMainBlockContainer'] { padding: 4rem 2.5rem 2rem; }
@media (max-width: 640px) {
  [data-testid='stMainBlockContainer'] { padding: 4rem 1rem 2rem; }
  [class*='st-key-wide'] { overflow-x: auto; }
  [class*='st-key-wide'] > div { min-width: 42rem; }
}
/* What is loaded ahead is neither seen nor read out. */
.st-key-ahead { position: absolute; visibility: hidden; height: 0; overflow: hidden; }
/* Words on pictures stand on lines. */
.js-plotly-plot .textpoint text { paint-order: stroke; stroke: light-dark(#fff, #191815); stroke-width: 3px; }
</style>"""

#: Titles of the pages that draw nothing.
_WITHOUT_PICTURES = ("Studies", "Health", "Export")
#: Key under which steps to having loaded what draws pictures are counted, their number, and the seconds between them.
_AHEAD, _LOADED, _AHEAD_S = "loaded ahead", 3, 0.8
#: Key of the database that this visitor has seen.
_SEEN = "seen database"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """A page about one study.

    Args:
        title: Its name in the navigation; lower-case it is its address.
        show: Draws it.
        follows_points: Whether it shows learning curves of trials at work.
        follows_workers: Whether it shows the workers.
    """

    title: str
    show: Callable[[Open], None]
    follows_points: bool = False
    follows_workers: bool = False


_VIEWS = (
    _View(title="Front", show=front.show),
    _View(title="Configuration", show=configuration.show),
    _View(title="Trials", show=trials.show, follows_points=True),
    _View(title="Insight", show=insight.show),
    _View(title="Health", show=health.show, follows_workers=True),
    _View(title="Export", show=export.show),
)


def main(url: str) -> None:
    """Draw the page that the address names, whatever state the database is in."""
    # No symbols in the navigation: Streamlit fetches those of pages from the internet.
    st.set_page_config(page_title="autopeft", page_icon=str(_ICON), layout="wide")
    st.html(_STYLE)
    _links.adopt_address()
    pages = {"Studies": st.Page(lambda: _studies(url), title="Studies", default=True)}
    for view in _VIEWS:
        pages[view.title] = st.Page(_page(url, view), title=view.title, url_path=view.title.lower())
    st.session_state["pages"] = pages
    page = st.navigation(list(pages.values()), position="top")
    page.run()
    _links.write_address()
    if page.title not in _WITHOUT_PICTURES:
        st.session_state[_AHEAD] = _LOADED
    elif st.session_state.get(_AHEAD, 0) < _LOADED:
        st.session_state[_AHEAD] = 0
        _load_ahead()


@st.fragment(run_every=_AHEAD_S, key="ahead fragment")
def _load_ahead() -> None:
    """Have the browser load what draws pictures while the visitor reads a page that has none."""
    times = st.session_state[_AHEAD] = st.session_state.get(_AHEAD, 0) + 1
    if times == 1:
        return  # the page itself comes first
    if times > 2:
        st.rerun()  # it is there: the page is drawn without this
    with st.container(key="ahead"):
        st.plotly_chart(figures.sample_figure(), key="sample", config={"displaylogo": False}, alt="nothing")


def _page(url: str, view: _View) -> Callable[[], None]:
    def show() -> None:
        _guarded(url, lambda reader: _study_page(url, reader, view))

    show.__name__ = view.title.lower()
    return show


def _studies(url: str) -> None:
    def draw(reader: StudyReader) -> None:
        overviews = reader.overviews()
        studies.show(url, reader, overviews)
        _live.watch(reader, _live.page_token(overviews), None, _live.interval_s(None))

    _guarded(url, draw)


def _study_page(url: str, reader: StudyReader, view: _View) -> None:
    overviews = sorted(reader.overviews(), key=lambda item: item.last_activity_at, reverse=True)
    if not overviews:
        _no_studies(reader)
        return
    overview = _chosen(reader, overviews)
    if overview is None:
        return
    opened = Open(url=url, reader=reader, overview=overview, others=tuple(overviews))
    _header(opened, [item.name for item in overviews])
    # Before the page is drawn: who copies the address early copies the right one.
    _links.write_address()
    _about_the_link(opened)
    # Before the page is drawn as well: what changes meanwhile is seen at the next look.
    workers = reader.workers() if view.follows_workers else ()
    view.show(opened)
    _live.watch(
        reader,
        _live.page_token([overview], follows_points=view.follows_points, workers=workers),
        overview.name,
        _live.interval_s(overview),
        follows_points=view.follows_points,
        follows_workers=view.follows_workers,
    )


def _guarded(url: str, draw: Callable[[StudyReader], None]) -> None:
    """Draw, or say what is wrong and how it goes on; details of what nobody foresaw go to the server's log only."""
    reader = None
    try:
        reader = _cache.open_reader(url)
        reader.check()
        draw(reader)
    except NotFoundError as error:
        if st.session_state.get(_SEEN) == url:
            st.warning(
                "The database that was here is gone. The page goes on by itself when it is back.",
                icon=":material/link_off:",
            )
        else:
            st.info("There is no study to show yet.", icon=":material/hourglass_empty:")
        st.text(str(error))
    except AutoPeftError as error:
        st.error(
            "The database cannot be read just now. The page recovers by itself when it can.", icon=":material/error:"
        )
        st.text(str(error))
    except Exception:
        _log.exception("a page could not be drawn")
        st.error(
            "This page could not be drawn. The other pages may work; the terminal that the dashboard was started in "
            "says what happened.",
            icon=":material/error:",
        )
        return
    else:
        st.session_state[_SEEN] = url
        return
    if reader is not None:
        _live.recover(reader)


def _no_studies(reader: StudyReader) -> None:
    st.info("There is no study in this database yet. It appears here as soon as a search is started:")
    st.code("autopeft search --task stdlib/topics --budget 1%", language="bash")
    _live.watch(reader, "", None, _live.RECOVERY_S)


def _chosen(reader: StudyReader, overviews: list[StudyOverview]) -> StudyOverview | None:
    """The study that the address or the visitor names, else the one with the latest activity."""
    name = _links.chosen_study()
    if name is None:
        return overviews[0]
    found = next((item for item in overviews if item.name == name), None)
    if found is None:
        st.warning("The link names a study that is not in this database.", icon=":material/link_off:")
        try:
            reader.overview(name)
        except NotFoundError as error:
            st.text(str(error))
        if st.button("Show the study with the latest activity", type="primary"):
            _links.choose_study(overviews[0].name)
            st.rerun()
        st.page_link(st.session_state["pages"]["Studies"], label="See all studies")
    return found


def _header(opened: Open, names: list[str]) -> None:
    _links.choose_study(opened.name)
    st.session_state["study picker"] = opened.name
    left, right = st.columns([2, 3], vertical_alignment="bottom")
    left.selectbox(
        "Study",
        names,
        key="study picker",
        on_change=lambda: _links.choose_study(st.session_state["study picker"]),
    )
    right.text(opened.facts_line())


def _about_the_link(opened: Open) -> None:
    """Say when the address names a trial that cannot be shown."""
    n = opened.overview.n_trials_total
    if not _links.unknown_trials(n):
        return
    has = f"it has trials 0 to {n - 1}" if n else "it has no trials yet"
    st.warning(f"The link names a trial that this study does not have; {has}.", icon=":material/link_off:")
    st.button("Forget the trial", on_click=_links.forget_trials)
