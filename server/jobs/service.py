"""What a user may do to a job: cancel, pause, resume, retry, archive, edit."""

from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session

from server.attempts.ending import end_unclaimed
from server.auth import Principal
from server.db import utcnow
from server.errors import problem
from server.events.service import append_event, transition
from server.hub import work_appeared
from server.jobs import store
from server.jobs.moves import end_job, park, requeue
from server.jobs.sentences import stands
from server.jobs.tables import Job
from stoker.status import LIVE, TERMINAL
from stoker.timers import TimerSettings


def cancel(session: Session, who: Principal, job_id: str, timers: TimerSettings) -> Job:
    """Ask the job to end. Raises 409 `illegal_transition` when it has ended."""
    job = store.lock_visible(session, who, job_id)
    if job.state in TERMINAL:
        raise _refused(job, "only a job that has not ended can be cancelled")
    if job.state == "cancelling":
        return job
    if job.state not in LIVE:
        end_job(session, job, "cancelled", "cancelled_by_user")
        return job
    transition(session, job, "cancelling", desired="cancel", stop_deadline=_deadline(timers))
    end_unclaimed(session, job, "cancelled_by_user")
    return job


def pause(session: Session, who: Principal, job_id: str, timers: TimerSettings) -> Job:
    """Ask the job to save a checkpoint and stop. Raises 409 `illegal_transition` when it has ended or is about to."""
    job = store.lock_visible(session, who, job_id)
    if job.state in ("pausing", "paused"):
        if job.desired == "run":
            job.desired = "pause"
            append_event(session, job, "notice", _requested("pause"))
        return job
    if job.state == "queued":
        park(session, job, "paused_by_user")
        return job
    transition(session, job, "pausing", desired="pause", stop_deadline=_deadline(timers))
    end_unclaimed(session, job, "paused_by_user")
    return job


def resume(session: Session, who: Principal, job_id: str) -> Job:
    """Let a paused job go on; one that is still pausing goes on when it has stopped. Raises 409 `illegal_transition`."""
    job = store.lock_visible(session, who, job_id)
    if job.state == "paused":
        requeue(session, job, reason=None, queued_at=utcnow())
    elif job.state == "pausing":
        if job.desired != "run":
            job.desired = "run"
            append_event(session, job, "notice", _requested("resume"))
    elif job.state in TERMINAL or job.state == "cancelling":
        again = "; `stoker retry` runs this one again" if job.state in ("failed", "cancelled") else ""
        raise _refused(job, f"only a paused job can be resumed{again}")
    return job


def retry(session: Session, who: Principal, job_id: str, *, from_start: bool) -> Job:
    """Run a failed or cancelled job again, from its last checkpoint or from the start. Raises 409 `illegal_transition`."""
    job = store.lock_visible(session, who, job_id)
    if job.state not in ("failed", "cancelled"):
        raise _refused(job, "only a job that failed or was cancelled can be retried")
    changes: dict[str, Any] = {"counted_failures": 0, "infra_failures": 0, "last_failure": None, "message": None}
    changes |= {"outcome": None, "finished_at": None, "archived_at": None}
    if from_start:
        changes |= {
            "start_epoch": job.epoch,
            "objective": {k: job.objective[k] for k in ("key", "mode")} if job.objective else None,
        }
        changes |= {"progress": {"step": 0, "total_steps": job.progress.get("total_steps")}}
    requeue(session, job, reason=None, queued_at=utcnow(), **changes)
    return job


def archive(session: Session, who: Principal, job_id: str) -> Job:
    """Hide an ended job from lists. Raises 409 `illegal_transition` while it lives."""
    job = store.lock_visible(session, who, job_id)
    if job.state not in TERMINAL:
        raise _refused(job, "only a job that has ended can be archived")
    if job.archived_at is None:
        job.archived_at = utcnow()
        append_event(session, job, "notice", {"level": "info", "code": "archived", "message": "The job was archived."})
    return job


def edit(session: Session, who: Principal, job_id: str, version: int, changes: dict[str, Any]) -> Job:
    """Change name, labels or priority. Raises 412 `version_mismatch`."""
    job = store.lock_visible(session, who, job_id)
    if job.version != version:
        raise problem(412, "version_mismatch", f"The job has version {job.version}, not the one in If-Match; read it again.")
    for name, value in changes.items():
        setattr(job, name, value)
    if "labels" in changes:
        store.replace_labels(session, job.id, job.project, changes["labels"])
    data = {"level": "info", "code": "edited", "message": "Changed: " + ", ".join(sorted(changes)) + "."}
    append_event(session, job, "notice", data)
    work_appeared(session)
    return job


def _deadline(timers: TimerSettings) -> datetime:
    return utcnow() + timedelta(seconds=timers.stop_grace + timers.margin)


def _refused(job: Job, rule: str) -> Exception:
    return problem(409, "illegal_transition", f"{stands(job.state)}; {rule}.")


def _requested(action: str) -> dict[str, Any]:
    return {"level": "info", "code": "desired", "message": f"{action.capitalize()} requested."}
