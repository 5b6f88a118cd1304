"""What the server answers: lenient responses, so that an older client survives a newer server. Times are RFC 3339 UTC."""

from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from stoker.errors import Finding

T = TypeVar("T")


class View(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Page(View, Generic[T]):
    """Part of a list; `next` is the value for `after` of the following page."""

    data: list[T]
    has_more: bool
    next: str | None = None


class ProgressView(View):
    step: int = 0
    total_steps: int | None = None
    fraction: float | None = None
    epoch: float | None = None
    samples: int = 0
    tokens: int = 0
    eta_seconds: float | None = None


class ObjectiveView(View):
    key: str
    mode: str
    best: float | None = None
    last: float | None = None
    best_step: int | None = None


class ErrorView(View):
    reason: str
    fault: str
    message: str
    hint: str


class JobView(View):
    id: str
    name: str | None
    project: str
    labels: dict[str, str]
    kind: str
    state: str
    phase: str | None
    reason: str | None
    outcome: str | None
    desired: str
    priority: int
    created_at: datetime
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    archived_at: datetime | None = None
    progress: ProgressView
    attempt: int
    """Number of the newest attempt; 0 before the first."""
    epoch: int
    spec_digest: str
    parent_id: str | None
    resources: dict[str, Any]
    """device, cpus, gpus, memory_bytes as placed."""
    objective: ObjectiveView | None
    plan: dict[str, Any] | None = None
    """The prediction made at submit; only on the single job."""
    metrics: dict[str, float | str] = {}
    """Last value of each key."""
    error: ErrorView | None
    last_event: int
    links: dict[str, str]


class NodeView(View):
    """One worker's part in an attempt."""

    id: str
    """Names its workspace on the worker."""
    node: int
    worker: str
    state: str
    devices: dict[str, Any]
    claimed_at: datetime | None
    ended_at: datetime | None
    exit_code: int | None
    reason: str | None
    message: str | None


class AttemptView(View):
    id: str
    number: int
    epoch: int
    state: str
    worker: str | None
    devices: dict[str, Any]
    placed_at: datetime
    claimed_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    exit_code: int | None
    reason: str | None
    message: str | None
    resumed_from: int | None
    overrides: dict[str, Any] = {}
    """What it did otherwise than the spec says, in the shape of a spec: a remedy for a lack of memory."""
    nodes: list[NodeView] = []
    """The workers that ran it together; one, as a rule. `worker` and `devices` are those of node 0."""


class EventView(View):
    """One entry of a job's event log. `seq` counts from 1 without gaps."""

    seq: int
    type: str
    """state, phase, attempt, metrics, checkpoint, artifact, notice, end."""
    created_at: datetime
    epoch: int
    data: dict[str, Any]


class FileView(View):
    path: str
    bytes: int
    sha256: str


class CheckpointView(View):
    step: int
    epoch: int
    state: str
    bytes: int
    metrics: dict[str, float | str]
    tags: list[str]
    """best, last, final."""
    created_at: datetime
    files: list[FileView] = []
    """Only on the single checkpoint."""


class ArtifactView(View):
    name: str
    bytes: int
    sha256: str
    created_at: datetime


class SeriesView(View):
    """One metric, bucketed. Buckets are `bucket` steps wide and start at multiples of it, whatever has been logged."""

    steps: list[int]
    """First step of each bucket that has points."""
    min: list[float | str | None]
    mean: list[float | str | None]
    max: list[float | str | None]
    last: list[float | str | None]
    count: list[int]


class MetricsView(View):
    bucket: int
    """Width of a bucket in steps; 1 means every point."""
    cursor: str
    """Pass as `since` to get only what came later."""
    complete: bool = True
    """False for an answer to `since`: each bucket here replaces the one with the same first step. True: everything is here,
    and what was known before is void (the first answer, another width, or a stretch was superseded by a newer attempt)."""
    keys: dict[str, SeriesView]


class LogChunkView(View):
    rank: int
    stream: str
    attempt: int
    offset: int
    text: str


class DatasetView(View):
    name: str
    version: int
    digest: str
    bytes: int
    created_at: datetime
    files: list[FileView] = []
    facts: dict[str, Any] | None = None


class WorkerView(View):
    id: str
    name: str
    state: str
    """active, draining, lost."""
    version: str
    address: str = ""
    """Where other nodes reach it."""
    capacity: dict[str, Any]
    held: dict[str, Any]
    """cpus, memory_bytes, gpus and tpus in use."""
    jobs: list[str]
    heartbeat_at: datetime
    warm: bool
    load: dict[str, float]


class PlanView(View):
    """What a submit of the same document would make of it."""

    plan: dict[str, Any]
    """stoker.plan.Plan as JSON."""
    needs: dict[str, Any]
    """What the scheduler would place."""
    spec: dict[str, Any]
    """The resolved spec, defaults included."""
    spec_digest: str
    origins: dict[str, str]
    """Pointer → user, preset, default, auto, override."""
    warnings: list[Finding] = []


class KeyView(View):
    id: str
    prefix: str
    name: str
    project: str | None
    """Null: every project (admin)."""
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    key: str | None = None
    """The secret; only in the answer to its creation."""


class GateView(View):
    """One `--require`."""

    expression: str
    key: str
    op: str
    threshold: float
    value: float | str | None
    passed: bool


class VerdictView(View):
    job_id: str
    state: str
    passed: bool | None
    """Null while the job runs."""
    gates: list[GateView]


class WhyView(View):
    """Why a job waits."""

    state: str
    message: str
    position: int | None
    ahead: list[str]
    """Ids of jobs placed before it, at most ten."""
    needs: dict[str, Any]
    workers: list[dict[str, Any]]
    """Each worker with what it has free and what is missing."""
