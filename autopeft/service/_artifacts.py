"""Routes that download what was published of a study, and the report that is published when its search ends."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path as FilePath
from typing import Annotated, Final
from urllib.parse import quote

from fastapi import APIRouter, Path
from starlette.responses import Response

from autopeft.artifacts import ArtifactStore, publish, study_folder
from autopeft.exceptions import AutoPeftError, NotFoundError
from autopeft.export import render_report
from autopeft.service._documents import SAFE_HEADERS, Veil
from autopeft.service._limits import decoded
from autopeft.service._parameters import StudyPath
from autopeft.store import SqlStore

#: Largest file that is downloaded: adapters and reports, no merged models.
MAX_BYTES: Final = 512 * 2**20

_log = logging.getLogger(__name__)


def artifact_routes(store: SqlStore, artifacts: ArtifactStore | None, veil: Veil) -> APIRouter:
    """The routes of one service.

    Args:
        store: Studies; only what belongs to one of them is served.
        artifacts: Where results are published; None if the operator named no place.
        veil: Takes this machine's paths out of what is served.
    """
    router = APIRouter(tags=["artifacts"])

    def place(study: str) -> tuple[ArtifactStore, str]:
        name = store.load_outline(decoded(study)).spec.name
        if artifacts is None:
            raise NotFoundError(
                f"study {name} has no artifacts: this service has no place for them; its operator names one with "
                "--artifacts."
            )
        return artifacts, study_folder(name)

    @router.get("/v1/studies/{study}/artifacts", summary="What was published of it: reports, exported adapters")
    def names(study: StudyPath) -> Response:
        where, root = place(study)
        found = [item.removeprefix(f"{root}/") for item in where.list_named(root)]
        return veil.json({"study": decoded(study), "artifacts": found})

    @router.get("/v1/studies/{study}/artifacts/{name:path}", summary="One of these files")
    def download(
        study: StudyPath, name: Annotated[str, Path(description="As the list gives it.", max_length=512)]
    ) -> Response:
        where, root = place(study)
        plain = decoded(name)
        # Compared with what is there instead of made a path of.
        if f"{root}/{plain}" not in where.list_named(root):
            raise NotFoundError(f"there is no artifact {plain[:200]!r} of this study; GET its list of artifacts.")
        content = where.read_named(f"{root}/{plain}", limit=MAX_BYTES)
        file = quote(plain.rpartition("/")[2])
        headers = {**SAFE_HEADERS, "Content-Disposition": f"attachment; filename*=UTF-8''{file}"}
        return Response(content, media_type="application/octet-stream", headers=headers)

    return router


def publish_report(store: SqlStore, artifacts: ArtifactStore, study: str) -> None:
    """Publish a study's report; a failure is logged, because the search itself has ended well."""
    try:
        with tempfile.TemporaryDirectory(prefix="autopeft-report-") as folder:
            path = FilePath(folder) / "report.html"
            text = render_report(store.load_study(study), "html")
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
            publish(artifacts, study, "reports", path)
    except (AutoPeftError, OSError) as error:
        _log.warning("the report could not be published: %s", error, extra={"study": study})
