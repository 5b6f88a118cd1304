"""The view of a job, from its row."""

from server.jobs.rows import JobRow, WholeJobRow
from stoker.reasons import reason
from stoker.views import ErrorView, JobView, ObjectiveView, ProgressView

_LINKS = ("events", "metrics", "logs", "attempts", "children", "checkpoints", "artifacts", "spec", "why", "verdict")


def view(row: JobRow) -> JobView:
    """The job without its plan."""
    return JobView(
        id=row.id,
        name=row.name,
        project=row.project,
        labels=row.labels,
        kind=row.kind,
        state=row.state,
        phase=row.phase,
        reason=row.reason,
        outcome=row.outcome,
        desired=row.desired,
        priority=row.priority,
        created_at=row.created_at,
        queued_at=row.queued_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        archived_at=row.archived_at,
        progress=ProgressView(**row.progress),
        attempt=row.attempts,
        epoch=row.epoch,
        spec_digest=row.spec_digest,
        parent_id=row.parent_id,
        resources=row.needs.document(),
        objective=ObjectiveView(**row.objective) if row.objective else None,
        metrics=row.metrics,
        error=_error(row),
        last_event=row.last_event,
        links=links(row.id),
    )


def links(job_id: str) -> dict[str, str]:
    return {"self": f"/v1/jobs/{job_id}", **{name: f"/v1/jobs/{job_id}/{name}" for name in _LINKS}}


def whole_view(row: WholeJobRow) -> JobView:
    return view(row).model_copy(update={"plan": row.plan})


def etag(row: JobRow) -> str:
    return f'"{row.version}"'


def _error(row: JobRow) -> ErrorView | None:
    if row.state != "failed" or row.reason is None:
        return None
    known = reason(row.reason)
    return ErrorView(reason=known.code, fault=known.fault, message=row.message or known.hint, hint=known.hint)
