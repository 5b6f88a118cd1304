"""List and download what a job produced beside its checkpoints."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from sqlmodel import Session
from starlette.responses import Response

from server.artifacts import service
from server.artifacts.tables import Artifact
from server.blobs.download import serve
from server.deps import Db, Reader, Run
from server.jobs.store import visible_job
from server.openapi import refusals
from server.paging import Limit, page
from stoker.views import ArtifactView, Page

router = APIRouter(prefix="/v1/jobs/{job_id}/artifacts", tags=["artifacts"])


@router.get("", response_model=Page[ArtifactView], responses=refusals(404))
async def list_artifacts(
    job_id: str,
    db: Db,
    who: Reader,
    limit: Limit = 100,
    after: Annotated[str | None, Query(max_length=300, description="`next` of the page before.")] = None,
) -> Page[ArtifactView]:
    """By name."""

    def read(session: Session) -> Page[ArtifactView]:
        visible_job(session, who, job_id)
        return page(service.page(session, job_id, after, limit + 1), limit, lambda r: r.name, service.view)

    return await db.read(read)


@router.get("/{name:path}", response_class=Response, responses=refusals(404, 416, 503))
async def get_artifact(job_id: str, name: str, request: Request, run: Run, who: Reader) -> Response:
    """The file, or a range of it, as an attachment that no browser runs."""

    def read(session: Session) -> Artifact:
        visible_job(session, who, job_id)
        return service.get(session, job_id, name)

    row = await run.db.read(read)
    plain = name.rpartition("/")[2]
    return await serve(request, run.blobs, row.sha256, row.bytes, media_type="application/octet-stream", filename=plain)
