"""A job's event log: pages of JSON, or a resumable stream on the same URL."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response, StreamingResponse

from server.deps import Db, Reader, Run
from server.errors import problem
from server.events import store
from server.events.rows import EventRow
from server.events.stream import follow
from server.jobs.store import visible_job
from server.openapi import refusals
from server.paging import Limit
from stoker.views import EventView, Page

router = APIRouter(tags=["events"])


@router.get(
    "/v1/jobs/{job_id}/events",
    responses={
        200: {"model": Page[EventView], "content": {"text/event-stream": {"schema": {"type": "string"}}}},
        **refusals(404, 429),
    },
)
async def list_events(
    request: Request,
    job_id: str,
    db: Db,
    runtime: Run,
    who: Reader,
    limit: Limit = 100,
    after: Annotated[int | None, Query(ge=0, le=2**62, description="Number of the last event that is known.")] = None,
    last_event_id: Annotated[str | None, Header(description="As browsers send it; the same as `after`.")] = None,
) -> Response:
    """Events in order. With `Accept: text/event-stream`, everything from there on until the job ends."""
    known = after if after is not None else _number(last_event_id)
    job = await db.read(lambda s: visible_job(s, who, job_id))
    if "text/event-stream" in request.headers.get("accept", "") and request.scope.get("stoker.method") != "HEAD":
        body = follow(runtime, who.id, job.id, known)
        return StreamingResponse(
            body, media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
    rows = await db.read(lambda s: store.after(s, job_id, known, limit + 1))
    data = [view(r) for r in rows[:limit]]
    more = len(rows) > limit
    page = Page[EventView](data=data, has_more=more, next=str(data[-1].seq) if data and more else None)
    return Response(page.model_dump_json(), media_type="application/json")


def view(row: EventRow) -> EventView:
    return EventView(seq=row.seq, type=row.type, created_at=row.created_at, epoch=row.epoch, data=row.data)


def _number(text: str | None) -> int:
    if text is None or text == "":
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise problem(422, "validation_failed", "Last-Event-ID is the number of an event.")
    return int(text)
