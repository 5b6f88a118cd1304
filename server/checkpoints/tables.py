"""Committed checkpoints of a job: manifests of blobs."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Index
from sqlmodel import Field

from server.db import JsonValue, Row, UtcTime


class Checkpoint(Row, table=True):
    __tablename__ = "checkpoints"
    __table_args__ = (Index("ix_checkpoints_job", "job_id", "step"),)

    id: str = Field(primary_key=True)
    job_id: str = Field(foreign_key="jobs.id")
    step: int
    epoch: int
    state: str = "available"
    """available, corrupt, expired."""
    final: bool = False
    bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
    files: list[dict[str, Any]] = Field(sa_column=Column(JsonValue, nullable=False))
    metrics: dict[str, Any] = Field(sa_column=Column(JsonValue, nullable=False))
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))


class CheckpointHold(Row, table=True):
    """A job that starts from the weights of another job's checkpoint, which is kept until that job has ended."""

    __tablename__ = "checkpoint_holds"
    __table_args__ = (Index("ix_checkpoint_holds_checkpoint", "checkpoint_id"),)

    job_id: str = Field(primary_key=True, foreign_key="jobs.id")
    checkpoint_id: str = Field(foreign_key="checkpoints.id")
