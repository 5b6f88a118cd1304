"""Jobs: submit, look, wait, steer."""

import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Header, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session
from starlette.responses import Response

from server.attempts import service as attempts
from server.attempts import store as attempt_rows
from server.auth import Principal
from server.db import Database
from server.deps import Db, ProjectName, Reader, Run, Runtime, Submitter
from server.errors import problem
from server.idempotency import Answer, claim_of, once
from server.jobs import gates, service, store
from server.jobs.document import BODY, read_document
from server.jobs.rows import JobRow, WholeJobRow
from server.jobs.search import search
from server.jobs.submit import insert
from server.jobs.submit_route import SubmitRoute
from server.jobs.tables import Job
from server.jobs.views import etag, view, whole_view
from server.jobs.waiting import until_terminal
from server.openapi import refusals
from server.paging import After, Limit, page
from server.scheduler import why as why_of
from stoker.document.document import Document
from stoker.spec.base import Name
from stoker.spec.job import LabelKey, LabelValue
from stoker.views import AttemptView, JobView, Page, VerdictView, WhyView

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

JobId = Annotated[str, Path(max_length=64, pattern=r"^[A-Za-z0-9_]+$")]
Require = Annotated[list[str] | None, Query(max_length=50, description="A gate such as validation/accuracy>=0.95; repeatable.")]
Spec = Annotated[Document, Depends(read_document)]


async def create_job(
    request: Request, document: Spec, runtime: Run, who: Submitter, project: ProjectName, require: Require = None
) -> Response:
    """Submit a job. `require` sets its gates."""
    gated = tuple(gates.parse(r).expression for r in require or ())
    claim = await claim_of(request, project)
    answer, replayed = await runtime.intake.submit(who, project, document, await request.body(), gated, claim)
    return answer.response(replayed=replayed)


router.add_api_route(
    "",
    create_job,
    methods=["POST"],
    status_code=202,
    response_model=JobView,
    responses=refusals(409),
    openapi_extra=BODY,
    route_class_override=SubmitRoute,
)


@router.put("/by-name/{name}", status_code=202, response_model=JobView, responses=refusals(409), openapi_extra=BODY)
async def create_named_job(
    request: Request, name: Annotated[Name, Path()], document: Spec, db: Db, runtime: Run, who: Submitter, project: ProjectName
) -> Response:
    """Submit a job once under a name: 202 the first time, 200 with the same job afterwards, 409 `name_taken` for another spec."""
    prepared = await runtime.intake.prepare(who, project, document)

    def work(session: Session) -> Answer:
        there = store.named(session, prepared.columns["project"], name)
        if there is None:
            named = prepared.renamed(name)
            return _created(insert(session, runtime.intake.limit, named, unique_name=name))
        if there.spec_digest != prepared.columns["spec_digest"]:
            raise problem(409, "name_taken", "A job of this name was made from another spec.")
        return Answer(200, _json(whole_view(there)), {"Location": f"/v1/jobs/{there.id}", "ETag": etag(there)})

    return (await db.write(work)).response()


def _created(row: WholeJobRow) -> Answer:
    return Answer(202, _json(whole_view(row)), {"Location": f"/v1/jobs/{row.id}", "ETag": etag(row)})


def _json(job: JobView) -> bytes:
    return job.model_dump_json().encode()


@router.get("")
async def list_jobs(
    request: Request,
    db: Db,
    who: Reader,
    limit: Limit = 50,
    after: After = None,
    state: Annotated[list[str] | None, Query(description="States, repeated or separated by commas.")] = None,
    name: str | None = None,
    project: str | None = None,
    parent: str | None = None,
    since: Annotated[str | None, Query(description="Created at or after, RFC 3339.")] = None,
    archived: Annotated[bool, Query(description="Archived jobs too.")] = False,
) -> Page[JobView]:
    """Jobs, newest first. Beside the parameters, `label.<key>=<value>` and `metric.<key><op>=<number>`."""
    query = store.page(search(who, request.query_params.multi_items()), after, limit)
    rows = await db.read(lambda s: list(s.execute(query)))
    return page(rows, limit, lambda r: str(r.id), view)


@router.get("/{job_id}", response_model=JobView, responses={304: {"description": "Unchanged."}, **refusals(404)})
async def get_job(
    job_id: JobId,
    db: Db,
    runtime: Run,
    who: Reader,
    wait: Literal["terminal"] | None = None,
    timeout: Annotated[float, Query(ge=0, le=300, description="Seconds to wait at most.")] = 60,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """One job with its plan. `wait=terminal` answers when it has ended, or after the timeout as it is then."""
    row = await db.read(lambda s: store.whole_job(s, who, job_id))
    if wait is not None:
        row = await until_terminal(runtime, row, timeout, lambda s: store.whole_job(s, who, job_id))
    headers = {"ETag": etag(row), "Cache-Control": "no-cache"}
    if if_none_match is not None and etag(row) in [t.strip().removeprefix("W/") for t in if_none_match.split(",")]:
        return Response(status_code=304, headers=headers)
    return Response(_json(whole_view(row)), 200, headers, "application/json")


class JobEdit(BaseModel):
    """What may change after submit; left out, it stays."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Name | None = None
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=64)] = {}
    priority: Annotated[int, Field(ge=-100, le=100)] = 0


@router.patch("/{job_id}", response_model=JobView, responses=refusals(404, 412, 428))
async def edit_job(
    job_id: JobId,
    asked: JobEdit,
    db: Db,
    who: Submitter,
    if_match: Annotated[str | None, Header(description="The ETag that the change is based on.")] = None,
) -> Response:
    """Change name, labels or priority."""
    if if_match is None:
        raise problem(428, "precondition_required", "Send If-Match with the ETag that the change is based on.")
    text = if_match.strip('"')
    version = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1
    return await _steer(db, lambda s: service.edit(s, who, job_id, version, asked.model_dump(exclude_unset=True)))


async def _steer(db: Database, work: Callable[[Session], Job]) -> Response:
    def run(session: Session) -> Answer:
        return _state_of(session, work(session), 200)

    return (await db.write(run)).response()


def _state_of(session: Session, job: Job, status: int) -> Answer:
    session.flush()
    return Answer(status, _json(whole_view(job)), {"ETag": etag(job)})


async def _act(request: Request, runtime: Runtime, who: Principal, work: Callable[[Session], Job]) -> Response:
    return await once(request, runtime.db, who.project or "", lambda s: _state_of(s, work(s), 202))


@router.post("/{job_id}/cancel", status_code=202, response_model=JobView, responses=refusals(404, 409))
async def cancel_job(request: Request, job_id: JobId, runtime: Run, who: Submitter) -> Response:
    """Ask the job to end. It may still succeed when it was about to."""
    return await _act(request, runtime, who, lambda s: service.cancel(s, who, job_id, runtime.settings.timers))


@router.post("/{job_id}/pause", status_code=202, response_model=JobView, responses=refusals(404, 409))
async def pause_job(request: Request, job_id: JobId, runtime: Run, who: Submitter) -> Response:
    """Ask the job to stop at a checkpoint and to wait there."""
    return await _act(request, runtime, who, lambda s: service.pause(s, who, job_id, runtime.settings.timers))


@router.post("/{job_id}/resume", status_code=202, response_model=JobView, responses=refusals(404, 409))
async def resume_job(request: Request, job_id: JobId, runtime: Run, who: Submitter) -> Response:
    """Let a paused job go on from its checkpoint."""
    return await _act(request, runtime, who, lambda s: service.resume(s, who, job_id))


class Retry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    from_start: bool = False
    """Begin again instead of continuing from the last checkpoint."""


@router.post("/{job_id}/retry", status_code=202, response_model=JobView, responses=refusals(404, 409))
async def retry_job(
    request: Request,
    job_id: JobId,
    runtime: Run,
    who: Submitter,
    asked: Annotated[Retry | None, Body()] = None,
    from_start: Annotated[bool, Query(description="The same as in the body.")] = False,
) -> Response:
    """Run a failed or cancelled job again."""
    fresh = from_start or (asked is not None and asked.from_start)
    return await _act(request, runtime, who, lambda s: service.retry(s, who, job_id, from_start=fresh))


@router.post("/{job_id}/archive", status_code=202, response_model=JobView, responses=refusals(404, 409))
async def archive_job(request: Request, job_id: JobId, runtime: Run, who: Submitter) -> Response:
    """Hide an ended job from lists."""
    return await _act(request, runtime, who, lambda s: service.archive(s, who, job_id))


@router.get("/{job_id}/spec", responses=refusals(404))
async def get_spec(job_id: JobId, db: Db, who: Reader, resolved: bool = False) -> dict[str, Any]:
    """The document as submitted; `resolved=true`: {spec, origins, digest} with every value and where it comes from."""
    row = await db.read(lambda s: store.whole_job(s, who, job_id))
    if not resolved:
        submitted: dict[str, Any] = json.loads(row.submitted)
        return submitted
    return {"spec": json.loads(row.spec), "origins": row.origins, "digest": row.spec_digest}


@router.get("/{job_id}/attempts", responses=refusals(404))
async def list_attempts(job_id: JobId, db: Db, who: Reader, limit: Limit = 200, after: After = None) -> Page[AttemptView]:
    """Attempts, oldest first."""

    def read(session: Session) -> list[AttemptView]:
        store.visible_job(session, who, job_id)
        return [v for v in attempts.views(attempt_rows.of_job(session, job_id)) if after is None or v.id > after]

    return page((await db.read(read))[: limit + 1], limit, lambda v: v.id, lambda v: v)


@router.get("/{job_id}/children", responses=refusals(404))
async def list_children(job_id: JobId, db: Db, who: Reader, limit: Limit = 50, after: After = None) -> Page[JobView]:
    """Jobs that this one started, newest first."""

    def read(session: Session) -> Sequence[JobRow]:
        store.visible_job(session, who, job_id)
        return session.execute(store.page(search(who, [("parent", job_id), ("archived", "true")]), after, limit)).all()

    return page(await db.read(read), limit, lambda r: str(r.id), view)


@router.get("/{job_id}/why", responses=refusals(404))
async def get_why(job_id: JobId, db: Db, runtime: Run, who: Reader) -> WhyView:
    """Why the job waits. Ids of other projects' jobs are left out."""

    def read(session: Session) -> WhyView:
        found = why_of(session, store.visible_job(session, who, job_id), runtime.settings.timers)
        return (
            found
            if who.project is None
            else found.model_copy(update={"ahead": store.in_project(session, who.project, found.ahead)})
        )

    return await db.read(read)


@router.get("/{job_id}/verdict", responses=refusals(404))
async def get_verdict(job_id: JobId, db: Db, who: Reader, require: Require = None) -> VerdictView:
    """Whether the job met its gates: those given here, or else those it was submitted with."""
    row = await db.read(lambda s: store.visible_job(s, who, job_id))
    return gates.verdict(row.id, row.state, row.metrics, require or row.gates)
