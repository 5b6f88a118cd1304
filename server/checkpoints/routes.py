"""List and download a job's checkpoints."""

import asyncio
import hashlib
import json
from typing import Annotated

from fastapi import APIRouter, Path, Request
from sqlmodel import Session
from starlette.responses import Response, StreamingResponse

from server.blobs.download import ahead, is_head, serve
from server.checkpoints import service, store, tar
from server.deps import Db, Reader, Run
from server.errors import not_found, unavailable
from server.jobs.store import whole_job
from server.openapi import refusals
from server.paging import After, Limit
from stoker.views import CheckpointView, Page

router = APIRouter(prefix="/v1/jobs/{job_id}/checkpoints", tags=["checkpoints"])

Which = Annotated[str, Path(pattern=r"^(best|last|final|[0-9]{1,16})$", description="A step, or best, last, final.")]


@router.get("", response_model=Page[CheckpointView], responses=refusals(404))
async def list_checkpoints(job_id: str, db: Db, who: Reader, limit: Limit = 50, after: After = None) -> Page[CheckpointView]:
    """Newest first; deleted ones stay listed as expired."""

    def read(session: Session) -> Page[CheckpointView]:
        job = whole_job(session, who, job_id)
        rows = store.page(session, job_id, after, limit + 1)
        shown, more = rows[:limit], len(rows) > limit
        return Page(data=service.views(session, job, shown), has_more=more, next=shown[-1].id if more else None)

    return await db.read(read)


@router.get("/{which}.tar", response_class=Response, responses=refusals(404, 409, 503))
async def get_checkpoint_tar(job_id: str, which: Which, request: Request, run: Run, who: Reader) -> Response:
    """All files as one tar; not resumable, for convenience. Single files are resumable."""
    row = await run.db.read(lambda s: service.readable(service.find(s, whole_job(s, who, job_id), which)))
    folder = f"step-{row.step:08d}"
    digest = hashlib.sha256(json.dumps([folder, row.files]).encode()).hexdigest()
    headers = {
        "Content-Type": "application/x-tar",
        "Content-Length": str(tar.length(folder, row.files)),
        "Content-Disposition": f'attachment; filename="{job_id}-{folder}.tar"',
        "ETag": f'"{digest}"',
        "Cache-Control": "private, no-cache",
    }
    if is_head(request):
        return Response(headers=headers)
    pieces = tar.stream(run.blobs, folder, row.files)
    try:
        first = await asyncio.to_thread(next, pieces)
    except OSError as error:
        raise unavailable("blob_unavailable", "The bytes of a file cannot be read at the moment.", retry_after=30) from error
    return StreamingResponse(ahead(first, pieces), headers=headers)


@router.get("/{which}", response_model=CheckpointView, responses=refusals(404))
async def get_checkpoint(job_id: str, which: Which, db: Db, who: Reader) -> CheckpointView:
    """The manifest: path, size and SHA-256 of each file."""

    def read(session: Session) -> CheckpointView:
        job = whole_job(session, who, job_id)
        return service.view(service.find(session, job, which), service.tags_of(session, job), files=True)

    return await db.read(read)


@router.get("/{which}/files/{path:path}", response_class=Response, responses=refusals(404, 409, 416, 503))
async def get_checkpoint_file(job_id: str, which: Which, path: str, request: Request, run: Run, who: Reader) -> Response:
    """One file, or a range of it."""
    row = await run.db.read(lambda s: service.readable(service.find(s, whole_job(s, who, job_id), which)))
    file = next((f for f in row.files if f["path"] == path), None)
    if file is None:
        raise not_found()
    name = path.rpartition("/")[2]
    return await serve(request, run.blobs, file["sha256"], file["bytes"], media_type="application/octet-stream", filename=name)
