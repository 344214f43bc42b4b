"""``autopeft status``, once or until the search has ended."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from autopeft.cli._output import OutputFormat, data_console, tell, write
from autopeft.exceptions import MachineError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from autopeft.cli._source import StudySource
    from autopeft.store import StudyFollower, StudySummary
    from autopeft.study import Study


class StatusView:
    """What `autopeft status` shows, read anew by every `refresh`.

    Args:
        store: Where studies are.
        study: Full name of the study; None for all of them.
    """

    def __init__(self, store: StudySource, study: str | None) -> None:
        self._store = store
        self._name = study
        self._follower: StudyFollower | None = None
        self._studies: list[StudySummary] = []
        self._study: Study | None = None
        #: Whether it could not be read at the last look.
        self.is_lost = False

    def refresh(self) -> None:
        """Read what there is now.

        Raises:
            NotFoundError: If the study is not there any more.
            MachineError: If it cannot be read.
        """
        from autopeft.store import SqlStore, StudyFollower

        self._studies = self._store.list_studies()
        if self._name is None:
            return
        if not isinstance(self._store, SqlStore):
            self._study = self._store.load_study(self._name)
            return
        # Of a database it reads only what has changed since the last look.
        if self._follower is None:
            self._follower = StudyFollower(self._store, self._name)
        attributes = self._store.load_outline(self._name).attributes
        self._study = replace(self._follower.refresh(), attributes=attributes)

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be expected: the search has concluded."""
        from autopeft.export import StudyResult

        return self._study is not None and StudyResult.of(self._study).is_final

    def document(self) -> dict[str, Any]:
        """As JSON."""
        from autopeft.export import status_document, studies_document

        if self._study is None:
            return studies_document(self._studies, self._store.url)
        return status_document(self._study, self._summary(), self._store.url)

    def human(self) -> RenderableType:
        """As people see it."""
        from autopeft.cli import _tables

        if self._study is None:
            return _tables.studies_table(self._studies)
        return _tables.status_view(self._study, self._summary(), self._store.url)

    def _summary(self) -> StudySummary:
        return next(item for item in self._studies if item.name == self._name)


def watch_status(
    view: StatusView, format: OutputFormat, interval: str, *, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Show a status until it is over: in place on a terminal, anew whenever it has changed anywhere else.

    A source that is out of reach for a while is asked again.

    Args:
        view: What is shown.
        format: How; JSON is one document a line.
        interval: Between two looks, as `parse_duration` reads it.
        sleep: Waits so many seconds.

    Raises:
        UsageError: If the interval is none.
        NotFoundError: If the study is not there any more.
        MachineError: If it cannot be read at first.
    """
    from rich.live import Live

    from autopeft.orchestrate import parse_duration

    pause_s = max(parse_duration(interval), 0.1)
    view.refresh()
    console = data_console()
    if format is OutputFormat.HUMAN and console.is_terminal:
        with Live(view.human(), console=console, auto_refresh=False) as live:
            while not view.is_over:
                sleep(pause_s)
                if _refreshed(view):
                    live.update(view.human(), refresh=True)
        return
    shown = ""
    while True:
        text = _text(view, format)
        if text != shown:
            write(text)
            shown = text
        if view.is_over:
            return
        sleep(pause_s)
        _refreshed(view)


def _refreshed(view: StatusView) -> bool:
    try:
        view.refresh()
    except MachineError as error:
        if not view.is_lost:
            tell(f"warning: {error} Asking again until it answers.")
        view.is_lost = True
        return False
    view.is_lost = False
    return True


def _text(view: StatusView, format: OutputFormat) -> str:
    if format is OutputFormat.JSON:
        from autopeft.export import SCHEMA_VERSION

        document = {"schema_version": SCHEMA_VERSION, **view.document()}
        return json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n"
    console = data_console()
    with console.capture() as capture:
        console.print(view.human())
    return "\n".join(line.rstrip() for line in capture.get().split("\n"))
