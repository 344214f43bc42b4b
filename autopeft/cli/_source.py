"""Where commands that read find studies: a database, or a service."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from autopeft.cli._environment import database_url
from autopeft.exceptions import UsageError

if TYPE_CHECKING:
    from autopeft.cli._client import ServiceClient
    from autopeft.store import StudySummary
    from autopeft.study import Study

_PANEL = "A service instead of a database"

ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        envvar="AUTOPEFT_SERVER",
        metavar="URL",
        rich_help_panel=_PANEL,
        show_default=False,
        help="Ask the service at this URL (`autopeft serve`) instead of a database.",
    ),
]
TokenFileOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        rich_help_panel=_PANEL,
        show_default=False,
        help="File with your token for it. Default: AUTOPEFT_API_TOKEN_FILE or AUTOPEFT_API_TOKEN.",
    ),
]
CaFileOption = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        envvar="AUTOPEFT_CA_FILE",
        metavar="FILE",
        rich_help_panel=_PANEL,
        show_default=False,
        help="Certificates to trust, for a service whose own is not signed by a public authority.",
    ),
]


class StudySource(Protocol):
    """Gives studies to be read."""

    @property
    def url(self) -> str:
        """Where they are, fit to be shown."""
        ...

    def list_studies(self) -> list[StudySummary]:
        """Summaries of all studies, oldest first."""
        ...

    def load_study(self, name: str) -> Study:
        """A study and all its trials."""
        ...


class ServiceStudies:
    """The studies of a service, as if they were in a database of one's own.

    Args:
        client: Of the service.
    """

    def __init__(self, client: ServiceClient) -> None:
        self._client = client

    @property
    def url(self) -> str:
        return self._client.url

    def list_studies(self) -> list[StudySummary]:
        from autopeft.store import StudySummary
        from autopeft.study import StudySpec, TrialState

        found: list[StudySummary] = []
        while True:
            page = self._client.get("/v1/studies", spec="true", limit=_PAGE, offset=len(found))["studies"]
            found += [
                StudySummary(
                    spec=StudySpec.from_dict(item["spec"]),
                    n_trials={state: int(item["counts"].get(state.value, 0)) for state in TrialState},
                    created_at=datetime.fromisoformat(item["created_at"]),
                    last_activity_at=datetime.fromisoformat(item["last_activity_at"]),
                )
                for item in page
            ]
            if len(page) < _PAGE:
                return found

    def load_study(self, name: str) -> Study:
        from autopeft.cli._client import study_path
        from autopeft.store import restore_study

        document = self._client.get(study_path(name, "archive"))["archive"]
        return restore_study(document, f"what {self.url} says of study {name}")


_PAGE = 200


def chosen_server(server: str | None, db: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The service to ask; None for the database. Flags win over the environment, and a service over a database.

    Raises:
        UsageError: If both are given as flags.
    """
    if server is None:
        return None
    names_db = db is not None and db != environment.get("AUTOPEFT_DB")
    names_server = server != environment.get("AUTOPEFT_SERVER")
    if names_db and names_server:
        raise UsageError("--db and --server exclude each other: a service has its own database.")
    return None if names_db else server


def open_client(server: str, token_file: Path | None, ca_file: Path | None) -> ServiceClient:
    """A client of a service, with the caller's token.

    Raises:
        UsageError: If the URL, token or certificates cannot be used.
    """
    from autopeft.cli._client import ServiceClient, find_token

    return ServiceClient(server, find_token(token_file), ca_file=ca_file)


def open_studies(
    db: str | None, server: str | None, token_file: Path | None = None, ca_file: Path | None = None
) -> StudySource:
    """Where studies are read.

    Raises:
        NotFoundError: If there is no such database.
        StoreError: If it cannot be used.
        UsageError: If the service's URL, token or certificates cannot be used.
    """
    chosen = chosen_server(server, db)
    if chosen is not None:
        return ServiceStudies(open_client(chosen, token_file, ca_file))
    from autopeft.store import open_store

    return open_store(database_url(db), create=False)
