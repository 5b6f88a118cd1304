"""One attempt to run a job. It holds devices from its placement to its end.

An attempt on several nodes has one row per node, of one job and epoch, each with its own agent, token, lease and devices. Node 0
reports the run. The attempt is over when its last row has ended (`server.attempts.ending`).
"""

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
    node: int = 0
    """Number of the node, from 0."""
    nodes: int = 1
    """Number of nodes of the attempt."""
    meeting: dict[str, Any] | None = Field(default=None, sa_column=Column(JsonValue))
    """{"address", "port"}: where ranks can meet on this node, once it is prepared; that of node 0 is used. None with one node."""
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
    remedy: dict[str, Any] | None = Field(default=None, sa_column=Column(JsonValue))
    """What it changes in the spec since its claim: server.attempts.remedies.SmallerBatches."""
    rewinds: list[list[int]] | None = Field(default=None, sa_column=Column(JsonValue))
    """[frame, step] for each time the run went back by itself: points of earlier frames count up to that step."""
    stop_reason: str | None = None
    """Why the server asks it to stop, though its job may continue: drained, time_limit, peer_lost."""
    stop_deadline: datetime | None = Field(default=None, sa_column=Column(UtcTime))
    """When it is cut off, after such a request or after the end of another node."""
    finished_as: str | None = None
    """The job's state in the answer to its finish; a repeated finish gets the same."""
    exit_code: int | None = None
    reason: str | None = None
    message: str | None = Field(default=None, sa_column=Column(Text))
    placed_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    hinted_at: datetime | None = Field(default=None, sa_column=Column(UtcTime))
    """When its wake-up was last put on the broker."""
    claimed_at: datetime | None = Field(default=None, sa_column=Column(UtcTime))
    started_at: datetime | None = Field(default=None, sa_column=Column(UtcTime))
    ended_at: datetime | None = Field(default=None, sa_column=Column(UtcTime))
