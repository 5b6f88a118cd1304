"""Queries over attempts."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlmodel import Session

from server.attempts.rows import AttemptRow
from server.attempts.tables import Attempt
from server.jobs.tables import Job

ATTEMPTS = Attempt.metadata.tables["attempts"]


def lock(session: Session, attempt_id: str) -> Attempt | None:
    """The attempt for this write alone. Lock its job first, always, so that two writes never wait for each other."""
    return session.get(Attempt, attempt_id, with_for_update=True, populate_existing=True)


def job_of(session: Session, attempt_id: str) -> str | None:
    """The job of an attempt, without a lock."""
    return session.scalar(select(ATTEMPTS.c.job_id).where(ATTEMPTS.c.id == attempt_id))


def live(session: Session, worker_id: str | None = None) -> Sequence[AttemptRow]:
    """Attempts that hold devices, of one worker or of all."""
    query = select(ATTEMPTS).where(ATTEMPTS.c.state.in_(("placed", "claimed", "running")))
    if worker_id is not None:
        query = query.where(ATTEMPTS.c.worker_id == worker_id)
    return session.execute(query.order_by(ATTEMPTS.c.placed_at, ATTEMPTS.c.id)).all()


def live_in_project(session: Session, project: str) -> Sequence[AttemptRow]:
    jobs = Job.metadata.tables["jobs"]
    query = select(ATTEMPTS).join(jobs, jobs.c.id == ATTEMPTS.c.job_id).where(jobs.c.project == project)
    return session.execute(query.where(ATTEMPTS.c.state.in_(("placed", "claimed", "running")))).all()


def of_job(session: Session, job_id: str) -> Sequence[AttemptRow]:
    """Oldest first, the nodes of one attempt together and in order."""
    query = select(ATTEMPTS).where(ATTEMPTS.c.job_id == job_id).order_by(ATTEMPTS.c.epoch, ATTEMPTS.c.node)
    return session.execute(query).all()


def meetings(session: Session, job_id: str, epoch: int) -> list[dict[str, Any] | None]:
    """Where ranks can meet on each node of an attempt, by node; None for a node that is not prepared."""
    query = select(ATTEMPTS.c.meeting).where(ATTEMPTS.c.job_id == job_id, ATTEMPTS.c.epoch == epoch)
    return list(session.scalars(query.order_by(ATTEMPTS.c.node)))


def by_ids(session: Session, ids: Iterable[str]) -> dict[str, AttemptRow]:
    rows = session.execute(select(ATTEMPTS).where(ATTEMPTS.c.id.in_(list(ids))))
    return {row.id: row for row in rows}


def unclaimed(session: Session, hinted_before: datetime) -> Sequence[AttemptRow]:
    """Placed attempts whose last wake-up is older than a time, or was never sent."""
    late = ATTEMPTS.c.hinted_at.is_(None) | (ATTEMPTS.c.hinted_at < hinted_before)
    return session.execute(select(ATTEMPTS).where(ATTEMPTS.c.state == "placed", late).limit(1000)).all()
