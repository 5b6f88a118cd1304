"""Workers: what they report, and who may drain them."""

from fastapi import APIRouter
from sqlmodel import Session

from server.attempts import store as attempts
from server.deps import Admin, Db, Reader, Run, WorkerKey
from server.errors import problem
from server.openapi import refusals
from server.paging import After, Limit, page
from server.workers import service
from stoker.protocol import Heartbeat, HeartbeatReply
from stoker.views import Page, WorkerView

router = APIRouter(tags=["workers"])


@router.post("/v1/workers/heartbeat", responses=refusals(409))
async def heartbeat(beat: Heartbeat, db: Db, runtime: Run, who: WorkerKey) -> HeartbeatReply:
    """A worker describes itself and the attempts it holds. Repeating it is harmless."""
    if who.project is not None:
        raise problem(403, "insufficient_scope", "A worker serves every project; its key must not be bound to one.")
    return await db.write(lambda s: service.heartbeat(s, beat, runtime.settings.timers))


@router.get("/v1/workers")
async def list_workers(db: Db, runtime: Run, who: Reader, limit: Limit = 100, after: After = None) -> Page[WorkerView]:
    """Workers by name. Ids of jobs of other projects are left out."""
    views = await db.read(lambda s: service.views(s, runtime.settings.timers))
    if who.project is not None:
        mine = await db.read(lambda s: {a.job_id for a in attempts.live_in_project(s, who.project or "")})
        views = [v.model_copy(update={"jobs": [j for j in v.jobs if j in mine]}) for v in views]
    later = [v for v in views if after is None or v.name > after]
    return page(later[: limit + 1], limit, lambda v: v.name, lambda v: v)


@router.post("/v1/workers/{worker_id}/drain", responses=refusals(404))
async def drain(worker_id: str, db: Db, runtime: Run, who: Admin) -> WorkerView:
    """Take a worker out of service, by id or name: what runs there stops at a checkpoint and continues elsewhere."""
    timers = runtime.settings.timers

    def work(session: Session) -> WorkerView:
        worker = service.drain(session, worker_id, timers)
        return service.view(worker, attempts.live(session, worker.id), timers)

    return await db.write(work)


@router.post("/v1/workers/{worker_id}/resume", responses=refusals(404))
async def resume(worker_id: str, db: Db, runtime: Run, who: Admin) -> WorkerView:
    """Put a drained worker back into service, by id or name."""
    timers = runtime.settings.timers

    def work(session: Session) -> WorkerView:
        worker = service.resume(session, worker_id)
        return service.view(worker, attempts.live(session, worker.id), timers)

    return await db.write(work)
