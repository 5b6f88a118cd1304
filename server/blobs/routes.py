"""HEAD, PUT and GET of bytes under their SHA-256 (stoker.protocol)."""

import asyncio
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Request
from sqlalchemy import select
from sqlmodel import col
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from server.auth import AttemptPrincipal, Credential, Principal
from server.blobs import service
from server.blobs.download import IMMUTABLE, is_head, serve
from server.blobs.failures import DigestMismatch, StorageFull, TooLarge, WrongOffset
from server.blobs.partial import Upload
from server.blobs.store import BlobStore
from server.deps import ProjectName, Run, Uploader, credential_of
from server.errors import Refusal, not_found, problem, unavailable
from server.jobs.tables import Job
from server.openapi import refusals

router = APIRouter(prefix="/v1/blobs", tags=["blobs"])

Digest = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the bytes, hex.")]
_PIECE = 1 << 20
"""Bytes handed to the disk at a time."""


async def require_blob_reader(request: Request) -> Credential:
    """An attempt's token, or a key that may read or work."""
    credential = credential_of(request)
    if isinstance(credential, Principal) and not (credential.may("read") or credential.may("worker")):
        raise problem(403, "insufficient_scope", "The key lacks the scope read.")
    return credential


async def read_project(run: Run, who: Annotated[Credential, Depends(require_blob_reader)], named: ProjectName) -> str:
    """The project whose blobs are read."""
    return await _project_of(run, who, named)


async def upload_project(run: Run, who: Uploader, named: ProjectName) -> str:
    """The project whose blobs are written."""
    return await _project_of(run, who, named)


async def _project_of(run: Run, who: Credential, named: str) -> str:
    """The key's project, or that of the attempt's job."""
    if not isinstance(who, AttemptPrincipal):
        return named
    project = await run.db.read(lambda s: s.scalar(select(col(Job.project)).where(col(Job.id) == who.job_id)))
    if project is None:
        raise not_found()
    return str(project)


Project = Annotated[str, Depends(upload_project)]
ReadProject = Annotated[str, Depends(read_project)]


@router.get("/{sha256}", response_class=Response, responses=refusals(404, 416, 503))
async def get_blob(sha256: Digest, request: Request, run: Run, project: ReadProject) -> Response:
    """The bytes, or a range of them. HEAD says whether they are stored whole, and keeps them for another day."""
    blob = await run.db.read(lambda s: service.find(s, project, sha256))
    if is_head(request):
        return await _head(run, project, sha256, None if blob is None else blob.bytes)
    if blob is None:
        raise not_found()
    return await serve(
        request, run.blobs, sha256, blob.bytes, media_type="application/octet-stream", filename=sha256, cache=IMMUTABLE
    )


async def _head(run: Run, project: str, sha256: str, size: int | None) -> Response:
    if size is not None and sha256 in await run.db.write(partial(service.touch, project=project, shas=[sha256])):
        return Response(status_code=200, headers={"Content-Length": str(size), "ETag": f'"{sha256}"'})
    offset = await asyncio.to_thread(run.blobs.partials.stored, project, sha256)
    return Response(status_code=404, headers={"Upload-Offset": str(offset), "Cache-Control": "no-store"})


router.head("/{sha256}", include_in_schema=False)(get_blob)


@router.put("/{sha256}", status_code=201, response_class=Response, responses=refusals(409, 413, 422, 503, 507))
async def put_blob(
    sha256: Digest,
    request: Request,
    run: Run,
    project: Project,
    upload_offset: Annotated[int, Header(ge=0, le=2**62, description="Where this request's bytes begin.")] = 0,
) -> Response:
    """Store bytes under their digest, from the beginning or from where an earlier request was cut."""
    store: BlobStore = run.blobs
    if await run.db.read(lambda s: service.find(s, project, sha256)) is not None:
        await _drain(request)
        await run.db.write(lambda s: service.touch(s, project, [sha256]))
        return _stored(sha256, 200)
    expected = int(request.headers.get("content-length", 0))
    limit = await _room(run, project, sha256, upload_offset + expected)
    try:
        upload = await asyncio.to_thread(store.begin, project, sha256, upload_offset, expected, limit)
        try:
            await _receive(request, upload)
            size = await asyncio.to_thread(store.finish, upload)
        finally:
            await asyncio.to_thread(upload.close)
        await run.db.write(lambda s: service.stored(s, project, sha256, size, quota=store.settings.quota_bytes))
    except ClientDisconnect:
        return Response(status_code=400)  # nobody reads it; what came is kept for the next request
    except (WrongOffset, DigestMismatch, TooLarge, StorageFull, service.BeingCollected, service.OverQuota) as failure:
        raise refusal_of(failure, quota=limit < store.settings.max_bytes) from failure
    return _stored(sha256, 201)


async def _room(run: Run, project: str, sha256: str, total: int) -> int:
    """Bytes the blob may have. Raises 413 before anything is read when it is announced to have more."""
    settings = run.blobs.settings
    try:
        left = await run.db.read(lambda s: service.admit(s, project, sha256, quota=settings.quota_bytes, more=total))
    except (service.BeingCollected, service.OverQuota) as failure:
        raise refusal_of(failure, quota=True) from failure
    if total > settings.max_bytes:
        raise refusal_of(TooLarge(), quota=False)
    return min(left, int(settings.max_bytes))


async def _receive(request: Request, upload: Upload) -> None:
    """Write the body as it comes, receiving the next piece while the last one is hashed and written."""
    loop = asyncio.get_running_loop()
    buffer, writing = bytearray(), None
    try:
        async for chunk in request.stream():
            buffer += chunk
            if len(buffer) >= _PIECE:
                if writing is not None:
                    await writing
                writing, buffer = loop.run_in_executor(None, upload.write, buffer), bytearray()
    finally:
        if writing is not None:
            await asyncio.wait([writing])
        if buffer and (writing is None or writing.exception() is None):
            await asyncio.to_thread(upload.write, buffer)
    if writing is not None:
        writing.result()


async def _drain(request: Request) -> None:
    async for _ in request.stream():
        pass


def _stored(sha256: str, status: int) -> Response:
    return Response(status_code=status, headers={"ETag": f'"{sha256}"', "Location": f"/v1/blobs/{sha256}"})


def refusal_of(failure: Exception, *, quota: bool) -> Refusal:
    """What an upload that failed is answered; `quota` when the project's quota was the nearer limit."""
    match failure:
        case WrongOffset():
            headers = {"Upload-Offset": str(failure.offset)}
            return problem(409, "upload_offset", f"Continue at byte {failure.offset}.", headers=headers)
        case DigestMismatch():
            return problem(422, "digest_mismatch", "The bytes do not hash to the name they were sent under; start over.")
        case TooLarge() if not quota:
            return problem(413, "body_too_large", "The file is larger than this server takes.")
        case TooLarge() | service.OverQuota():
            return problem(413, "quota_exceeded", "The project's storage quota would be exceeded; nothing was kept.")
        case service.BeingCollected():
            return unavailable("blob_being_collected", "An old copy of these bytes is being removed this moment; try again.")
        case _:
            retry = {"Retry-After": "30"}
            return problem(507, "storage_full", "The server's storage is full; nothing was kept.", headers=retry)
