"""Upload, list and download data sets."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from sqlmodel import Session
from starlette.responses import Response

from server.blobs.download import IMMUTABLE, serve
from server.datasets import service, store
from server.datasets.sandbox import Sandbox
from server.datasets.tables import Dataset
from server.deps import Db, ProjectName, Reader, Run, Submitter
from server.errors import not_found
from server.idempotency import Answer, once
from server.openapi import refusals
from server.paging import After, Limit, page
from stoker.spec.base import NAME_PATTERN
from stoker.views import DatasetView, Page

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])
sandbox = Sandbox()

Ref = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}(@[0-9]{1,9})?$", description="`name` or `name@version`.")]


@router.post("", status_code=201, response_model=DatasetView, responses={200: {"model": DatasetView}, **refusals(409)})
async def create_dataset(
    upload: service.DatasetUpload, request: Request, run: Run, who: Submitter, project: ProjectName
) -> Response:
    """Make a version of a manifest whose bytes are stored; 200 when these files already are one."""
    files = service.manifest_of(upload)
    digest = service.digest_of(files)
    await run.db.write(lambda s: service.keep(s, project, upload))
    row = await run.db.read(lambda s: service.existing(s, project, upload, digest))
    if row is None:
        content = await asyncio.to_thread(sandbox.measure, run.blobs, files, upload.format, upload.delimiter)
        return await once(request, run.db, project, lambda s: _answer(*service.create(s, project, upload, files, content)))
    return await once(request, run.db, project, lambda s: _answer(row, False))


def _answer(row: Dataset, new: bool) -> Answer:
    body = service.view(row).model_dump_json().encode()
    return Answer(201 if new else 200, body, {"Location": f"/v1/datasets/{row.name}@{row.version}"})


@router.get("", response_model=Page[DatasetView])
async def list_datasets(
    db: Db,
    who: Reader,
    project: ProjectName,
    limit: Limit = 50,
    after: After = None,
    name: Annotated[str | None, Query(pattern=NAME_PATTERN, description="All versions of this one, newest first.")] = None,
) -> Page[DatasetView]:
    """The newest version of each data set, by name; or every version of one."""

    def rows(session: Session) -> Page[DatasetView]:
        if name is None:
            found = store.newest_of_each(session, project, after, limit + 1)
            return page(found, limit, lambda r: r.name, lambda r: service.view(r, whole=False))
        before = int(after) if after is not None and after.isascii() and after.isdigit() and len(after) < 10 else None
        found = store.versions(session, project, name, before, limit + 1)
        return page(found, limit, lambda r: str(r.version), lambda r: service.view(r, whole=False))

    return await db.read(rows)


@router.get("/{ref}", response_model=DatasetView, responses=refusals(404))
async def get_dataset(ref: Ref, db: Db, who: Reader, project: ProjectName) -> DatasetView:
    """A version with its files and facts; without `@version`, the newest."""
    return await db.read(lambda s: service.view(service.get(s, project, ref)))


@router.get("/{ref}/files/{path:path}", response_class=Response, responses=refusals(404, 416))
async def get_dataset_file(ref: Ref, path: str, request: Request, run: Run, who: Reader, project: ProjectName) -> Response:
    """One file, or a range of it."""
    row = await run.db.read(lambda s: service.get(s, project, ref))
    file = next((f for f in row.files if f["path"] == path), None)
    if file is None:
        raise not_found()
    return await serve(
        request,
        run.blobs,
        file["sha256"],
        file["bytes"],
        media_type="application/octet-stream",
        filename=path.rpartition("/")[2],
        cache=IMMUTABLE if "@" in ref else "private, no-cache",
    )
