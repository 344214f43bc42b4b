"""What the first visitor would wait for is looked up when the server starts: it fills what `_cache` remembers."""

from __future__ import annotations

import logging
import threading

from autopeft.exceptions import AutoPeftError
from autopeft.store import StudyReader

from . import _cache, insight, trials
from ._study import Open

#: Studies of which every page is prepared, those with the latest activity.
_MOST_STUDIES = 2

_log = logging.getLogger(__name__)


def start_looking_ahead(url: str) -> threading.Thread:
    """Look ahead in the background; the server does not wait for it, nor does its end."""
    thread = threading.Thread(target=look_ahead, args=(url,), name="look ahead", daemon=True)
    thread.start()
    return thread


def look_ahead(url: str) -> None:
    """Look up what pages show at first. A database that cannot be read is no matter: the pages say what is wrong."""
    try:
        _look_ahead(url, _cache.open_reader(url))
    except AutoPeftError as error:
        _log.info("nothing to look ahead at: %s", error)
    except Exception:
        _log.exception("cannot look ahead")


def _look_ahead(url: str, reader: StudyReader) -> None:
    overviews = sorted(reader.overviews(), key=lambda item: item.last_activity_at, reverse=True)
    for item in overviews:
        _cache.facts(url, item.name, item.token, item)
    for item in overviews[:_MOST_STUDIES]:
        opened = Open(url=url, reader=reader, overview=item, others=tuple(overviews))
        frame = opened.frame()
        if frame.empty:
            continue
        _cache.result(url, item.name, item.token, item.spec)
        _cache.growth(url, item.name, item.token, item.spec)
        opened.frame(*trials.cost_names(opened))
        insight.look_ahead(opened)
