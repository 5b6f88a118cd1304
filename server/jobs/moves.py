"""Changes of a job's state that more than one part of the server makes: back to the queue, paused, ended."""

from typing import Any

from sqlmodel import Session

from server.db import utcnow
from server.events.service import append_event, transition
from server.hub import work_appeared
from server.jobs import gates
from server.jobs.tables import Job
from stoker.reasons import reason as known


def requeue(session: Session, job: Job, **changes: Any) -> None:
    """Put the job back in the queue and wake the scheduler."""
    defaults = {"desired": "run", "reason": None, "phase": "waiting_for_devices", "stop_deadline": None, "not_before": None}
    transition(session, job, "queued", **{**defaults, **changes})
    work_appeared(session)


def park(session: Session, job: Job, reason: str, message: str | None = None) -> None:
    """Pause the job until somebody resumes it."""
    values = {"desired": "pause", "reason": reason, "message": message, "phase": None, "stop_deadline": None, "not_before": None}
    transition(session, job, "paused", **values)


def end_job(session: Session, job: Job, state: str, reason: str, message: str | None = None) -> None:
    """Bring the job to a terminal state; the log's last entry is `end`."""
    outcome = gates.outcome(reason, job.metrics, job.gates) if state == "succeeded" else None
    changes: dict[str, Any] = {"reason": reason, "message": message, "outcome": outcome, "phase": None}
    changes |= {"finished_at": utcnow(), "stop_deadline": None, "not_before": None}
    transition(session, job, state, **changes)
    data = {"state": state, "reason": reason, "outcome": outcome, "message": message, "hint": known(reason).hint}
    append_event(session, job, "end", data)
