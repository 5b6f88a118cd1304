"""Metric points as packed columns: one row per reported frame, never a row per point."""

from datetime import datetime

from sqlalchemy import Column, LargeBinary
from sqlmodel import Field

from server.db import JsonValue, Row, UtcTime


class MetricChunk(Row, table=True):
    __tablename__ = "metric_chunks"

    job_id: str = Field(primary_key=True, foreign_key="jobs.id")
    epoch: int = Field(primary_key=True)
    seq: int = Field(primary_key=True)
    """Frame number within the attempt."""
    first_step: int
    last_step: int
    rows: int
    keys: list[str] = Field(sa_column=Column(JsonValue, nullable=False))
    packed: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    """stoker.frames.pack_metrics."""
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
