"""The resumable log of a job: one row per event, numbered from 1 without gaps."""

from datetime import datetime
from typing import Any

from sqlalchemy import Column
from sqlmodel import Field

from server.db import JsonValue, Row, UtcTime


class Event(Row, table=True):
    __tablename__ = "events"

    job_id: str = Field(primary_key=True, foreign_key="jobs.id")
    seq: int = Field(primary_key=True)
    epoch: int
    type: str
    """state, phase, attempt, metrics, checkpoint, artifact, notice, end."""
    data: dict[str, Any] = Field(sa_column=Column(JsonValue, nullable=False))
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
