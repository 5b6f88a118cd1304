"""What ranks printed, as raw chunks."""

from datetime import datetime

from sqlalchemy import BigInteger, Column, Index, LargeBinary
from sqlmodel import Field

from server.db import Row, UtcTime


class LogChunk(Row, table=True):
    __tablename__ = "log_chunks"
    __table_args__ = (Index("ix_log_chunks_rank", "job_id", "rank", "epoch", "seq"),)

    job_id: str = Field(primary_key=True, foreign_key="jobs.id")
    epoch: int = Field(primary_key=True)
    seq: int = Field(primary_key=True)
    """The number of its frame; of an attempt on several nodes, each of which numbers its own, the order of arrival."""
    rank: int
    stream: str
    offset: int = Field(sa_column=Column(BigInteger, nullable=False))
    """Bytes of that rank and stream before this chunk, within the attempt."""
    data: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
