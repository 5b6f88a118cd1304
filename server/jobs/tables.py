"""The rows of jobs, their labels and their last metrics."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Index, Text, text
from sqlmodel import Field

from server.db import JsonValue, Row, UtcTime
from server.jobs.needs_column import NeedsColumn
from stoker.plan import Needs


class Job(Row, table=True):
    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_pending", "state", text("priority DESC"), "queued_at"),
        Index("ix_jobs_project", "project", "id"),
        Index("ix_jobs_project_state", "project", "state", "id"),
        Index("ix_jobs_project_name", "project", "name", "id"),
        Index("ix_jobs_parent", "parent_id"),
        Index("ux_jobs_unique_name", "project", "unique_name", unique=True),
    )

    id: str = Field(primary_key=True)
    project: str
    name: str | None = None
    unique_name: str | None = None
    """Set for jobs created by PUT /v1/jobs/by-name/{name}."""
    kind: str = "train"
    state: str = "queued"
    desired: str = "run"
    phase: str | None = None
    reason: str | None = None
    outcome: str | None = None
    message: str | None = Field(default=None, sa_column=Column(Text))
    priority: int = 0
    labels: dict[str, str] = Field(default_factory=dict, sa_column=Column(JsonValue, nullable=False))
    parent_id: str | None = None
    epoch: int = 0
    """Fencing number: each placement raises it, and only the attempt of the current epoch may write."""
    attempts: int = 0
    """Attempts made so far."""
    counted_failures: int = 0
    """Failures since the last explicit retry that use up resources.max_retries."""
    infra_failures: int = 0
    """Failures of the infrastructure since the last explicit retry."""
    start_epoch: int = 0
    """Checkpoints of attempts up to this epoch are not continued from: the job was retried from the start."""
    last_failure: str | None = None
    """reason@step of the last counted failure; the same twice is poison."""
    remedy: dict[str, Any] | None = Field(default=None, sa_column=Column(JsonValue))
    """What the next attempt changes in the spec: server.attempts.remedies.SmallerBatches."""
    not_before: datetime | None = Field(default=None, sa_column=Column(UtcTime))
    """Backoff: not placed earlier."""
    submitted: str = Field(sa_column=Column(Text, nullable=False))
    """The document as it was sent, JSON text."""
    spec: str = Field(sa_column=Column(Text, nullable=False))
    """The resolved spec, canonical JSON text."""
    origins: dict[str, str] = Field(sa_column=Column(JsonValue, nullable=False))
    """Pointer → user, preset, default, auto, override."""
    spec_digest: str
    plan: dict[str, Any] = Field(sa_column=Column(JsonValue, nullable=False))
    needs: Needs = Field(sa_column=Column(NeedsColumn, nullable=False))
    gates: list[str] = Field(default_factory=list, sa_column=Column(JsonValue, nullable=False))
    """Requirements as written, `validation/accuracy>=0.95`."""
    progress: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JsonValue, nullable=False))
    metrics: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JsonValue, nullable=False))
    """Last value of each key; non-finite ones as strings."""
    objective: dict[str, Any] | None = Field(default=None, sa_column=Column(JsonValue))
    last_event: int = 0
    """Sequence number of the newest event."""
    version: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    """Raised by every change a reader can see; the ETag."""
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    queued_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    started_at: datetime | None = Field(default=None, sa_column=Column(UtcTime))
    finished_at: datetime | None = Field(default=None, sa_column=Column(UtcTime))
    archived_at: datetime | None = Field(default=None, sa_column=Column(UtcTime))
    stop_deadline: datetime | None = Field(default=None, sa_column=Column(UtcTime))
    """When a pause or cancellation must be complete; the attempt is ended then."""


class JobLabel(Row, table=True):
    """A label of a job, to search by."""

    __tablename__ = "job_labels"
    __table_args__ = (Index("ix_job_labels_value", "project", "key", "value", "job_id"),)

    job_id: str = Field(primary_key=True, foreign_key="jobs.id")
    key: str = Field(primary_key=True)
    project: str
    value: str


class JobMetric(Row, table=True):
    """The last finite value of a job's metric, to search by."""

    __tablename__ = "job_metrics"
    __table_args__ = (Index("ix_job_metrics_value", "project", "key", "value", "job_id"),)

    job_id: str = Field(primary_key=True, foreign_key="jobs.id")
    key: str = Field(primary_key=True)
    project: str
    value: float
