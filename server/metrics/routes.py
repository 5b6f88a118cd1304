"""A job's metrics as buckets."""

from typing import Annotated

import orjson
from fastapi import APIRouter, Query
from sqlmodel import Session
from starlette.responses import Response

from server.deps import Db, Reader
from server.jobs.store import visible_job
from server.metrics import service
from server.openapi import refusals
from stoker.views import MetricsView

router = APIRouter(tags=["metrics"])


@router.get("/v1/jobs/{job_id}/metrics", response_model=MetricsView, responses=refusals(404))
async def get_metrics(
    job_id: str,
    db: Db,
    who: Reader,
    keys: Annotated[str, Query(max_length=16_384, description="Names of metrics, separated by commas; unset, all.")] = "",
    max_points: Annotated[int, Query(ge=1, le=10_000, description="Buckets per metric at most.")] = 1000,
    since: Annotated[str | None, Query(pattern=service.Cursor.PATTERN, description="`cursor` of an earlier answer.")] = None,
) -> Response:
    """Each metric as min, mean, max and last of buckets that begin at multiples of their width, whatever has been logged."""
    cursor = None if since is None else service.Cursor.parse(since)
    wanted = [key for key in keys.split(",") if key]

    def read(session: Session) -> bytes:
        job = visible_job(session, who, job_id)
        total = job.progress.get("total_steps")
        return orjson.dumps(service.read(session, job_id, total, wanted, max_points, cursor))

    return Response(await db.read(read), media_type="application/json", headers={"Cache-Control": "no-store"})
