"""Rows of the event log."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select
from sqlmodel import Session

from server.events.rows import EventRow
from server.events.tables import Event

EVENTS = Event.metadata.tables["events"]
_INSERT = insert(EVENTS)


def add(session: Session, job_id: str, seq: int, epoch: int, type: str, data: dict[str, Any], now: datetime) -> None:
    row = {"job_id": job_id, "seq": seq, "epoch": epoch, "type": type, "data": data, "created_at": now}
    session.connection().execute(_INSERT, row)


def add_all(session: Session, rows: list[dict[str, Any]]) -> None:
    """Insert events of different jobs, each numbered by its caller."""
    session.connection().execute(_INSERT, rows)


def after(session: Session, job_id: str, seq: int, limit: int) -> Sequence[EventRow]:
    """Events with a higher number, in order."""
    query = select(EVENTS).where(EVENTS.c.job_id == job_id, EVENTS.c.seq > seq)
    return session.execute(query.order_by(EVENTS.c.seq).limit(limit)).all()
