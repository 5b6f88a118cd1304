"""Writing the event log, and the only way a job's state changes.

`append_event` and `transition` number events under the row lock of their job, so numbers have no gap and no tie.
"""

from typing import Any

from sqlalchemy import update
from sqlalchemy.orm.attributes import set_committed_value
from sqlmodel import Session

from server.db import utcnow
from server.errors import problem
from server.events import store
from server.hub import job_changed
from server.jobs.sentences import stands
from server.jobs.tables import Job
from stoker.status import may_go

_JOBS = Job.metadata.tables["jobs"]


def append_event(session: Session, job: Job, type: str, data: dict[str, Any]) -> int:
    """Add an event to the job's log and raise its version. Returns the event's number."""
    session.flush()
    numbered = (
        update(_JOBS)
        .where(_JOBS.c.id == job.id)
        .values(last_event=_JOBS.c.last_event + 1, version=_JOBS.c.version + 1)
        .returning(_JOBS.c.last_event, _JOBS.c.version)
    )
    seq, version = session.execute(numbered).one()
    set_committed_value(job, "last_event", seq)
    set_committed_value(job, "version", version)
    store.add(session, job.id, seq, job.epoch, type, data, utcnow())
    job_changed(session, job.id)
    return int(seq)


def transition(session: Session, job: Job, target: str, **changes: Any) -> None:
    """Move the job to another state, with other columns in the same guarded statement, and log it.

    The statement holds only while the row has the state and the epoch that the caller read.
    Raises 409 `illegal_transition` when the table of transitions has no such step, 409 `conflict` when the row has moved on.
    """
    if not may_go(job.state, target):
        raise problem(409, "illegal_transition", f"{stands(job.state)}; from there it cannot become {target}.")
    session.flush()
    source, values = job.state, {"state": target, **changes}
    guarded = (
        update(_JOBS)
        .where(_JOBS.c.id == job.id, _JOBS.c.state == source, _JOBS.c.epoch == job.epoch)
        .values(last_event=_JOBS.c.last_event + 1, version=_JOBS.c.version + 1, **values)
        .returning(_JOBS.c.last_event, _JOBS.c.version)
    )
    row = session.execute(guarded).one_or_none()
    if row is None:
        raise problem(409, "conflict", "Another request changed the job at the same time; read it again.")
    for name, value in {**values, "last_event": row.last_event, "version": row.version}.items():
        set_committed_value(job, name, value)
    data = {"from": source, "to": target, "reason": changes.get("reason"), "message": changes.get("message")}
    store.add(session, job.id, row.last_event, job.epoch, "state", {k: v for k, v in data.items() if v is not None}, utcnow())
    job_changed(session, job.id)
