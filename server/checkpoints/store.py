"""Queries of checkpoints."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlmodel import Session, col

from server.checkpoints.tables import Checkpoint


def of_job(session: Session, job_id: str) -> list[Checkpoint]:
    """Every one, tombstones too, newest step first and of one step the newest attempt's first."""
    query = select(Checkpoint).where(col(Checkpoint.job_id) == job_id)
    return list(
        session.scalars(query.order_by(col(Checkpoint.step).desc(), col(Checkpoint.epoch).desc(), col(Checkpoint.id).desc()))
    )


def page(session: Session, job_id: str, after: str | None, limit: int) -> list[Checkpoint]:
    """Newest first, tombstones too, from after an id."""
    query = select(Checkpoint).where(col(Checkpoint.job_id) == job_id)
    if after is not None:
        query = query.where(col(Checkpoint.id) < after)
    return list(session.scalars(query.order_by(col(Checkpoint.id).desc()).limit(limit)))


def with_states(session: Session, job_id: str, states: Sequence[str]) -> list[Checkpoint]:
    """As `of_job`, of some states."""
    return [c for c in of_job(session, job_id) if c.state in states]
