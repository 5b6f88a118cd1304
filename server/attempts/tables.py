"""One try to run a job. It holds devices from its placement to its end."""

from datetime import datetime
from typing import Any

from sqlalchemy import Column, Index, Text
from sqlmodel import Field

from server.db import JsonValue, Row, UtcTime


class Attempt(Row, table=True):
    __tablename__ = "attempts"
    __table_args__ = (
        Index("ix_attempts_job", "job_id", "epoch"),
        Index("ix_attempts_live", "state", "worker_id"),
    )

    id: str = Field(primary_key=True)
    job_id: str = Field(foreign_key="jobs.id")
    number: int
    epoch: int
    state: str = "placed"
    """placed, claimed, running, ended."""
    worker_id: str = Field(foreign_key="workers.id")
    worker_name: str
    devices: dict[str, Any] = Field(sa_column=Column(JsonValue, nullable=False))
    """{"cpus": slots, "gpus": [indices], "memory_bytes": n}: what it holds while it is not ended."""
    agent_id: str | None = None
    token_hash: str | None = None
    lease_expires_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    acked_through: int = 0
    """Last frame of the stored prefix."""
    started_step: int | None = None
    resumed_from: int | None = None
    """Step of the checkpoint it continued from; points of older attempts after it are superseded."""
    last_step: int | None = None
    stop_reason: str | None = None
    """Why the server wants it to stop although its job may go on: drained, time_limit."""
    stop_deadline: datetime | None = Field(default=None, sa_column=Column(UtcTime))
    """When such a stop must have ended; then the attempt is cut off."""
    finished_as: str | None = None
    """State of the job that its finish was answered with; a repeated finish gets it again."""
    exit_code: int | None = None
    reason: str | None = None
    message: str | None = Field(default=None, sa_column=Column(Text))
    placed_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    hinted_at: datetime | None = Field(default=None, sa_column=Column(UtcTime))
    """When its wake-up was last put on the broker."""
    claimed_at: datetime | None = Field(default=None, sa_column=Column(UtcTime))
    started_at: datetime | None = Field(default=None, sa_column=Column(UtcTime))
    ended_at: datetime | None = Field(default=None, sa_column=Column(UtcTime))
