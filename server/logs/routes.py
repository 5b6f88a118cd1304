"""A job's output: clean text to read, raw bytes to keep, pages of JSON, or a stream."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request
from sqlmodel import Session
from starlette.responses import Response, StreamingResponse

from server.blobs.download import is_head
from server.deps import Reader, Run, Runtime
from server.jobs.store import visible_job
from server.logs import service, store, stream
from server.logs.store import Filter, Place
from server.openapi import refusals
from server.paging import Limit
from stoker.views import LogChunkView, Page

router = APIRouter(tags=["logs"])

PLACE = r"^[0-9]{1,15}-[0-9]{1,15}$"
_HEADERS = {
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cache-Control": "no-store",
}
_TEXT = "text/plain; charset=utf-8"


@router.get(
    "/v1/jobs/{job_id}/logs",
    responses={
        200: {
            "model": Page[LogChunkView],
            "content": {"text/plain": {}, "text/event-stream": {}, "application/octet-stream": {}},
        },
        **refusals(404, 429),
    },
)
async def get_logs(
    job_id: str,
    request: Request,
    run: Run,
    who: Reader,
    rank: Annotated[int | None, Query(ge=0, lt=2**20, description="Only lines of this rank.")] = None,
    stream: Annotated[Literal["out", "err"] | None, Query(description="Only lines of this stream.")] = None,
    attempt: Annotated[int | None, Query(ge=1, le=2**31, description="Only lines of the attempt with this number.")] = None,
    follow: Annotated[bool, Query(description="Go on until the job has ended.")] = False,
    tail: Annotated[int | None, Query(ge=0, le=100_000, description="The last lines alone.")] = None,
    grep: Annotated[
        str | None, Query(min_length=1, max_length=256, description="Lines that contain this, letter by letter.")
    ] = None,
    download: Annotated[bool, Query(description="Raw bytes as they were printed, as an attachment.")] = False,
    limit: Limit = 100,
    after: Annotated[
        str | None, Query(pattern=PLACE, description="JSON and streams: `next` or `id` of the chunk before.")
    ] = None,
    last_event_id: Annotated[str | None, Header(pattern=PLACE, description="As browsers send it; the same as `after`.")] = None,
) -> Response:
    """By `Accept`: text/plain (the default), application/json pages of chunks, or text/event-stream."""

    def narrow(session: Session) -> Filter:
        visible_job(session, who, job_id)
        epoch = None if attempt is None else service.epoch_of(session, job_id, attempt)
        return Filter(job_id, rank, stream, epoch)

    wanted = await run.db.read(narrow)
    known = _place(after or last_event_id)
    accept = request.headers.get("accept", "")
    if is_head(request):
        return Response(headers=_HEADERS, media_type=_TEXT)
    if download:
        name = {"Content-Disposition": f'attachment; filename="{job_id}.log"'}
        return StreamingResponse(_raw(run, wanted), headers=_HEADERS | name, media_type="application/octet-stream")
    if "text/event-stream" in accept:
        return _events(run, who.id, wanted, known)
    if "application/json" in accept:
        return await _page(run, wanted, known, limit)
    return await _text(run, who.id, wanted, tail, grep, follow)


def _events(run: Runtime, key_id: str, wanted: Filter, known: Place) -> Response:
    stream.refuse_too_many(run, key_id)
    headers = _HEADERS | {"X-Accel-Buffering": "no"}
    return StreamingResponse(stream.events(run, key_id, wanted, known), headers=headers, media_type="text/event-stream")


async def _page(run: Runtime, wanted: Filter, known: Place, limit: int) -> Response:
    def read(session: Session) -> Page[LogChunkView]:
        rows = store.after(session, wanted, known, limit + 1)
        shown, more = rows[:limit], len(rows) > limit
        data = service.views(shown, service.numbers(session, wanted.job_id))
        return Page(data=data, has_more=more, next=f"{shown[-1].epoch}-{shown[-1].seq}" if more else None)

    page = await run.db.read(read)
    return Response(page.model_dump_json(), headers=_HEADERS, media_type="application/json")


async def _text(run: Runtime, key_id: str, wanted: Filter, tail: int | None, grep: str | None, follow: bool) -> Response:
    if follow:
        stream.refuse_too_many(run, key_id)
    known, begin = service.START, b""
    if tail is not None:
        lines, known = await run.db.read(lambda s: service.tail(s, wanted, tail, grep))
        begin = "".join(line + "\n" for line in lines).encode()
        if not follow:
            return Response(begin, headers=_HEADERS, media_type=_TEXT)
    label = wanted.rank is None and await run.db.read(lambda s: store.ranks(s, wanted)) > 1
    reader = service.Reader(label=label, grep=grep)
    going_on = stream.text(run, key_id, wanted, known, reader) if follow else _all(run, wanted, reader)
    return StreamingResponse(_after(begin, going_on), headers=_HEADERS, media_type=_TEXT)


async def _after(begin: bytes, following: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if begin:
        yield begin
    async for piece in following:
        yield piece


async def _all(run: Runtime, wanted: Filter, reader: service.Reader) -> AsyncIterator[bytes]:
    known = service.START
    while rows := await run.db.read(lambda s, k=known: store.after(s, wanted, k, service.BATCH)):  # type: ignore[misc]
        known = (rows[-1].epoch, rows[-1].seq)
        if lines := list(reader.feed(rows)):
            yield "".join(line + "\n" for line in lines).encode()
    if lines := list(reader.flush()):
        yield "".join(line + "\n" for line in lines).encode()


async def _raw(run: Runtime, wanted: Filter) -> AsyncIterator[bytes]:
    """Each attempt's, rank's and stream's output in one piece, so that the bytes are those that were printed."""
    for part in await run.db.read(lambda s: store.parts(s, wanted)):
        narrowed = replace(wanted, epoch=part.epoch, rank=part.rank, stream=part.stream)
        known, end = service.START, 0
        while rows := await run.db.read(lambda s, k=known, n=narrowed: store.after(s, n, k, service.BATCH)):  # type: ignore[misc]
            known = (rows[-1].epoch, rows[-1].seq)
            for row in rows:
                yield row.data[max(0, end - row.offset) :]
                end = max(end, row.offset + len(row.data))


def _place(text: str | None) -> Place:
    if text is None:
        return service.START
    epoch, seq = text.split("-")
    return int(epoch), int(seq)
