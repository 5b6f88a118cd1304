"""Queries over workers."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlmodel import Session, col

from server.workers.rows import WorkerRow
from server.workers.tables import Worker

WORKERS = Worker.metadata.tables["workers"]


def everyone(session: Session) -> Sequence[WorkerRow]:
    """By name."""
    return session.execute(select(WORKERS).order_by(WORKERS.c.name)).all()


def lock_named(session: Session, name: str) -> Worker | None:
    query = select(Worker).where(col(Worker.name) == name).with_for_update().execution_options(populate_existing=True)
    return session.scalars(query).one_or_none()


def lock(session: Session, worker_id: str) -> Worker | None:
    return session.get(Worker, worker_id, with_for_update=True, populate_existing=True)
