"""What agents say. See `stoker.protocol`."""

from typing import Annotated

from fastapi import APIRouter, Header, Request

from server.attempts import service
from server.attempts.reporting import frames_of
from server.deps import AttemptToken, Db, Run, WorkerKey
from server.openapi import refusals
from stoker.frames import MEDIA_TYPE
from stoker.protocol import Claim, ClaimReply, Finish, FinishReply, ReportReply

router = APIRouter(tags=["attempts"])


@router.post("/v1/attempts/{attempt_id}/claim", responses=refusals(404, 409))
async def claim(attempt_id: str, asked: Claim, db: Db, runtime: Run, who: WorkerKey) -> ClaimReply:
    """Take the attempt for one agent; the same agent may ask again."""
    return await db.write(lambda s: service.claim(s, attempt_id, asked, runtime.settings.pepper, runtime.settings.timers))


@router.post(
    "/v1/attempts/{attempt_id}/report",
    responses=refusals(404, 409),
    openapi_extra={"requestBody": {"content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}},
)
async def report(
    request: Request,
    attempt_id: str,
    db: Db,
    runtime: Run,
    who: AttemptToken,
    stoker_epoch: Annotated[int, Header(ge=0, le=2**62)],
) -> ReportReply:
    """Store numbered frames, each once, and renew the lease. An empty report is a heartbeat."""
    frames = frames_of(await request.body())
    return await db.write(lambda s: service.report(s, who, stoker_epoch, frames, runtime.settings.timers))


@router.post("/v1/attempts/{attempt_id}/finish", responses=refusals(404, 409))
async def finish(attempt_id: str, said: Finish, db: Db, who: AttemptToken) -> FinishReply:
    """End the attempt. A repeated finish gets its first answer."""
    return await db.write(lambda s: service.finish(s, who, said))
