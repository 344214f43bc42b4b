"""Routes that read studies: where they are, their trials, fronts, summaries and reports."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from autopeft.exceptions import NotFoundError
from autopeft.export import (
    StudyResult,
    front_document,
    render_report,
    report_document,
    show_document,
    status_document,
    studies_document,
    trial_document,
)
from autopeft.service._cache import StudyCache
from autopeft.service._documents import SAFE_HEADERS
from autopeft.service._limits import decoded
from autopeft.service._parameters import Limit, Offset, StudyPath
from autopeft.service._state import ServiceState
from autopeft.store import archive_study
from autopeft.study import Study, Trial, TrialKind, TrialState

_MEDIA_TYPES = {"html": "text/html", "md": "text/markdown"}


class ReportFormat(StrEnum):
    """How a report is written."""

    HTML = "html"
    MD = "md"
    JSON = "json"


def study_routes(state: ServiceState) -> APIRouter:
    """The routes of one service."""
    router = APIRouter(tags=["studies"])
    store = state.store

    cache = StudyCache(store)

    def load(study: str) -> Study:
        return cache.load(decoded(study))

    @router.get("/v1/studies", summary="All studies of the database, oldest first")
    def studies(limit: Limit = 1000, offset: Offset = 0, spec: bool = False) -> Response:
        chosen = store.list_studies()[offset : offset + limit]
        document = studies_document(chosen, store.url)
        if spec:
            for item, summary in zip(document["studies"], chosen, strict=True):
                item["spec"] = summary.spec.to_dict()
        return state.veil.json(document)

    @router.get("/v1/studies/{study}", summary="Where a study is")
    def status(study: StudyPath) -> Response:
        found = load(study)
        summary = next(item for item in store.list_studies() if item.name == found.spec.name)
        return state.veil.json(status_document(found, summary, store.url))

    @router.get("/v1/studies/{study}/front", summary="Its Pareto front, baselines and result")
    def front(study: StudyPath) -> Response:
        return state.veil.json(front_document(load(study)))

    @router.get("/v1/studies/{study}/trials", summary="Its trials, by number")
    def trials(
        study: StudyPath,
        kind: TrialKind | None = None,
        state_: Annotated[TrialState | None, Query(alias="state")] = None,
        limit: Limit = 1000,
        offset: Offset = 0,
    ) -> Response:
        found = load(study)
        chosen = [item for item in found.trials if kind in (None, item.kind) and state_ in (None, item.state)]
        documents = [trial_document(found, item) for item in chosen[offset : offset + limit]]
        return state.veil.json({"study": found.spec.name, "n_trials": len(chosen), "trials": documents})

    @router.get("/v1/studies/{study}/trials/{trial}", summary="Everything known of one trial")
    def show(
        study: StudyPath, trial: Annotated[str, Path(description="Its number, or best or knee.", max_length=20)]
    ) -> Response:
        found = load(study)
        return state.veil.json(show_document(found, _trial(found, trial)))

    @router.get("/v1/studies/{study}/summary", summary="What the search concluded; null until it has")
    def summary(study: StudyPath) -> Response:
        found = load(study)
        return state.veil.json({"study": found.spec.name, "summary": found.attributes.get("summary")})

    @router.get("/v1/studies/{study}/archive", summary="Everything stored of it, as `autopeft db export` does")
    def archive(study: StudyPath) -> Response:
        return state.veil.json({"archive": archive_study(load(study))})

    @router.get("/v1/studies/{study}/report", summary="Its report as one page, Markdown or JSON")
    def report(study: StudyPath, format: ReportFormat = ReportFormat.HTML) -> Response:
        found = load(study)
        if format is ReportFormat.JSON:
            return state.veil.json(report_document(found))
        text = state.veil(render_report(found, format.value))
        headers = {**SAFE_HEADERS, "Content-Disposition": f'attachment; filename="report.{format.value}"'}
        return Response(text.encode("utf-8", "replace"), media_type=_MEDIA_TYPES[format.value], headers=headers)

    return router


def _trial(study: Study, which: str) -> Trial:
    """The trial meant by a number, ``best`` or ``knee``.

    Raises:
        NotFoundError: If there is no such trial.
    """
    result = StudyResult.of(study)
    named = {"best": result.trial_to_use, "knee": result.front.knee()}
    found = named[which] if which in named else next((t for t in study.trials if str(t.number) == which), None)
    if found is None:
        raise NotFoundError(f"study {study.spec.name} has no trial {which!r}; it has {len(study.trials)}.")
    return found
