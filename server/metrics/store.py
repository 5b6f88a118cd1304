"""Queries of metric chunks: Core statements, for this is the busiest table."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Row, Text, cast, func, insert, select
from sqlmodel import Session

from server.metrics.tables import MetricChunk

CHUNKS = MetricChunk.metadata.tables["metric_chunks"]


class Chunk(NamedTuple):
    """What is read of a chunk."""

    epoch: int
    seq: int
    last_step: int
    rows: int
    keys: str
    """A JSON list: thousands of chunks have the same."""
    packed: bytes


def add(session: Session, values: dict[str, Any]) -> None:
    session.execute(insert(CHUNKS), values)


def newest(session: Session, job_id: str) -> tuple[int, int]:
    """Epoch and number of the chunk stored last; (0, 0) when there is none."""
    query = select(CHUNKS.c.epoch, CHUNKS.c.seq).where(CHUNKS.c.job_id == job_id)
    row = session.execute(query.order_by(CHUNKS.c.epoch.desc(), CHUNKS.c.seq.desc()).limit(1)).one_or_none()
    return (0, 0) if row is None else (row.epoch, row.seq)


def last_step(session: Session, job_id: str) -> int:
    """Highest step of any point."""
    return session.scalar(select(func.max(CHUNKS.c.last_step)).where(CHUNKS.c.job_id == job_id)) or 0


def span_after(session: Session, job_id: str, epoch: int, seq: int) -> tuple[int, int] | None:
    """First and last step of the chunks stored after one; None when there are none."""
    later = (CHUNKS.c.epoch > epoch) | ((CHUNKS.c.epoch == epoch) & (CHUNKS.c.seq > seq))
    query = select(func.min(CHUNKS.c.first_step), func.max(CHUNKS.c.last_step)).where(CHUNKS.c.job_id == job_id, later)
    first, last = session.execute(query).one()
    return None if first is None else (first, last)


def chunks(session: Session, job_id: str, first: int, last: int | None, upto: tuple[int, int]) -> Sequence[Row[Any]]:
    """Chunks with points in [first, last], in the order in which they were reported, up to a chunk, with the fields of `Chunk`."""
    keys = cast(CHUNKS.c["keys"], Text).label("keys")
    query = select(CHUNKS.c.epoch, CHUNKS.c.seq, CHUNKS.c.last_step, CHUNKS.c.rows, keys, CHUNKS.c.packed).where(
        CHUNKS.c.job_id == job_id
    )
    query = query.where((CHUNKS.c.epoch < upto[0]) | ((CHUNKS.c.epoch == upto[0]) & (CHUNKS.c.seq <= upto[1])))
    if first > 0:
        query = query.where(CHUNKS.c.last_step >= first)
    if last is not None:
        query = query.where(CHUNKS.c.first_step <= last)
    return session.execute(query.order_by(CHUNKS.c.epoch, CHUNKS.c.seq)).all()


def has_epoch(session: Session, job_id: str, epoch: int) -> bool:
    return session.scalar(select(CHUNKS.c.seq).where(CHUNKS.c.job_id == job_id, CHUNKS.c.epoch == epoch).limit(1)) is not None
