"""Queries of log chunks: Core statements."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, func, insert, select
from sqlmodel import Session

from server.logs.rows import LogRow
from server.logs.tables import LogChunk

CHUNKS = LogChunk.metadata.tables["log_chunks"]
Place = tuple[int, int]
"""Epoch and number of a chunk: the order in which output arrived."""


@dataclass(frozen=True)
class Filter:
    """Which output of a job."""

    job_id: str
    rank: int | None = None
    stream: str | None = None
    epoch: int | None = None

    def narrow(self, query: Select[Any]) -> Select[Any]:
        query = query.where(CHUNKS.c.job_id == self.job_id)
        if self.rank is not None:
            query = query.where(CHUNKS.c.rank == self.rank)
        if self.stream is not None:
            query = query.where(CHUNKS.c.stream == self.stream)
        if self.epoch is not None:
            query = query.where(CHUNKS.c.epoch == self.epoch)
        return query


def add(session: Session, values: dict[str, Any]) -> None:
    session.execute(insert(CHUNKS), values)


def last_seq(session: Session, job_id: str, epoch: int) -> int:
    """Number of the newest chunk of an attempt, 0 before the first."""
    query = select(func.max(CHUNKS.c.seq)).where(CHUNKS.c.job_id == job_id, CHUNKS.c.epoch == epoch)
    return session.scalar(query) or 0


def after(session: Session, wanted: Filter, known: Place, limit: int) -> Sequence[LogRow]:
    """Chunks in the order of arrival, from after a place."""
    later = (CHUNKS.c.epoch > known[0]) | ((CHUNKS.c.epoch == known[0]) & (CHUNKS.c.seq > known[1]))
    return session.execute(wanted.narrow(select(CHUNKS)).where(later).order_by(CHUNKS.c.epoch, CHUNKS.c.seq).limit(limit)).all()


def before(session: Session, wanted: Filter, known: Place | None, limit: int) -> Sequence[LogRow]:
    """Chunks newest first, from before a place."""
    query = wanted.narrow(select(CHUNKS))
    if known is not None:
        query = query.where((CHUNKS.c.epoch < known[0]) | ((CHUNKS.c.epoch == known[0]) & (CHUNKS.c.seq < known[1])))
    return session.execute(query.order_by(CHUNKS.c.epoch.desc(), CHUNKS.c.seq.desc()).limit(limit)).all()


def ranks(session: Session, wanted: Filter) -> int:
    """How many ranks printed anything."""
    return session.scalar(wanted.narrow(select(func.count(func.distinct(CHUNKS.c.rank))))) or 0


def parts(session: Session, wanted: Filter) -> Sequence[Row[Any]]:
    """Each (epoch, rank, stream) that printed anything, in that order."""
    columns = (CHUNKS.c.epoch, CHUNKS.c.rank, CHUNKS.c.stream)
    return session.execute(
        wanted.narrow(select(*columns)).distinct().order_by(CHUNKS.c.epoch, CHUNKS.c.rank, CHUNKS.c.stream.desc())
    ).all()
