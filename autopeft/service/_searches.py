"""Routes that hand in, list, read, stop and resume searches, and hand in files."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from autopeft.exceptions import NotAllowedError, SubmissionConflictError
from autopeft.service._documents import search_document
from autopeft.service._limits import decoded
from autopeft.service._parameters import Limit, Offset, StudyPath
from autopeft.service._requests import check_request
from autopeft.service._state import ServiceState
from autopeft.service._tokens import Caller, Role
from autopeft.service._uploads import Upload
from autopeft.store import Submission, SubmissionState

#: Where files are handed in; limits on bodies know it.
UPLOAD_PATH = "/v1/uploads"


class SearchRequest(BaseModel):
    """A search to be run."""

    model_config = ConfigDict(extra="forbid")

    settings: dict[str, Any] = Field(
        default_factory=dict,
        description="Settings as in a configuration file of `autopeft search`: `task`, `budget`, `trials`, ...",
        examples=[{"task": "stdlib/topics", "budget": "1%", "trials": 16}],
    )
    overrides: dict[str, Any] = Field(
        default_factory=dict, description="Settings that win over the others where they are not null, as flags do."
    )


def caller_of(request: Request) -> Caller:
    """Who asks; the guard has made sure that there is somebody."""
    caller: Caller = request.state.caller
    return caller


def search_routes(state: ServiceState) -> APIRouter:
    """The routes of one service."""
    router = APIRouter()

    def document(item: Submission, caller: Caller) -> dict[str, Any]:
        return search_document(item, state.submissions.queue(), is_own=_may_change(item, caller))

    def changeable(study: str, caller: Caller) -> Submission:
        item = state.submissions.load(decoded(study))
        if not _may_change(item, caller):
            raise NotAllowedError(f"study {item.study}: only {item.owner} may stop or resume it.")
        return item

    @router.post("/v1/searches", status_code=202, tags=["searches"], summary="Submit a search")
    def submit(body: SearchRequest, request: Request) -> Response:
        caller = caller_of(request)
        study, settings = check_request(body.settings, body.overrides, state.rules(caller.name))
        item = state.submissions.submit(study, caller.name, settings, max_queued=state.settings.max_queued)
        state.scheduler.wake()
        return state.veil.json(document(item, caller), 202, {"Location": f"/v1/searches/{study}"})

    @router.get("/v1/searches", tags=["searches"], summary="List submitted searches, the latest first")
    def searches(
        request: Request,
        owner: Annotated[str | None, Query(max_length=64)] = None,
        state_: Annotated[SubmissionState | None, Query(alias="state")] = None,
        limit: Limit = 100,
        offset: Offset = 0,
    ) -> Response:
        states = None if state_ is None else (state_,)
        found = state.submissions.find(owner=owner, states=states, limit=limit, offset=offset)
        queue, caller = state.submissions.queue(), caller_of(request)
        documents = [search_document(item, queue, is_own=_may_change(item, caller)) for item in found]
        return state.veil.json({"searches": documents})

    @router.get("/v1/searches/{study}", tags=["searches"], summary="Where a submitted search is")
    def search(study: StudyPath, request: Request) -> Response:
        return state.veil.json(document(state.submissions.load(decoded(study)), caller_of(request)))

    @router.post("/v1/searches/{study}/stop", tags=["searches"], summary="Stop a search; nothing measured is lost")
    def stop(study: StudyPath, request: Request) -> Response:
        caller = caller_of(request)
        item = state.submissions.request_stop(changeable(study, caller).study)
        state.scheduler.wake()
        return state.veil.json(document(item, caller))

    @router.post("/v1/searches/{study}/resume", tags=["searches"], summary="Queue a search again that has ended")
    def resume(study: StudyPath, request: Request) -> Response:
        caller = caller_of(request)
        item = changeable(study, caller)
        if item.state is SubmissionState.STOPPING:
            raise SubmissionConflictError(f"study {item.study} is just being stopped; resume it when it has.")
        # What was allowed once may not be any more.
        _, settings = check_request(item.settings, {}, state.rules(item.owner))
        item = state.submissions.submit(item.study, item.owner, settings, max_queued=state.settings.max_queued)
        state.scheduler.wake()
        return state.veil.json(document(item, caller))

    @router.get("/v1/searches/{study}/log", tags=["searches"], summary="What the search says of its progress")
    def log(study: StudyPath, offset: Offset = 0) -> Response:
        item = state.submissions.load(decoded(study))
        text, behind = state.drivers.log(item.study, offset)
        return state.veil.json({"study": item.study, "text": text, "offset": behind, "state": item.state.value})

    _add_uploads(router, state)
    return router


def _add_uploads(router: APIRouter, state: ServiceState) -> None:
    """The routes for files."""

    @router.post(
        UPLOAD_PATH,
        status_code=201,
        tags=["uploads"],
        summary="Hand in a data file, a search space or an earlier study: the body is its content",
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string"}}}}
        },
    )
    async def upload(request: Request, name: Annotated[str, Query(max_length=100)]) -> Response:
        owner = caller_of(request).name
        received = await state.uploads.receive(owner, name, request.stream())
        kept = await run_in_threadpool(state.uploads.keep, owner, name, received)
        return state.veil.json(_upload_document(kept), 201)

    @router.get(UPLOAD_PATH, tags=["uploads"], summary="Your files")
    def uploads(request: Request) -> Response:
        found = state.uploads.list(caller_of(request).name)
        return state.veil.json({"uploads": [_upload_document(item) for item in found]})

    @router.delete(UPLOAD_PATH, tags=["uploads"], summary="Delete one of your files")
    def delete(request: Request, reference: Annotated[str, Query(max_length=200)]) -> Response:
        owner = caller_of(request).name
        unfinished = [item for item in SubmissionState if not item.is_finished]
        for item in state.submissions.find(owner=owner, states=unfinished):
            if reference in item.settings.values():
                raise SubmissionConflictError(f"{reference} is needed by study {item.study}; stop that first.")
        state.uploads.delete(owner, reference)
        return state.veil.json({"deleted": reference})


def _may_change(item: Submission, caller: Caller) -> bool:
    return caller.role is Role.ADMIN or (caller.role is Role.WRITE and caller.name == item.owner)


def _upload_document(item: Upload) -> dict[str, Any]:
    return {"reference": item.reference, "name": item.path.name, "bytes": item.size}
