"""What workers and agents say to the server, and what it answers. Strict on both sides; scope `worker`.

POST /v1/workers/heartbeat        Heartbeat → HeartbeatReply       worker key
POST /v1/attempts/{id}/claim      Claim → ClaimReply               worker key; 409 stale_attempt when it is not theirs
POST /v1/attempts/{id}/report     frames (stoker.frames) → ReportReply      attempt token; header `Stoker-Epoch: N`; may be empty: a heartbeat
POST /v1/attempts/{id}/finish     Finish → FinishReply             attempt token
HEAD|PUT|GET /v1/blobs/{sha256}                                    attempt token or any key that may write

A claim by the same agent (`agent_id`) is answered again the same; by another, 409. A superseded or ended attempt gets 409
`stale_attempt` from report, claim and finish (a repeated finish of the same epoch and reason gets its first answer), and the
agent kills its ranks at once.

An attempt on several nodes is one attempt id per node, of one epoch: each agent claims, reports and finishes its own. Before
its ranks start, each sends a frame `prepared` {"address", "port"}; the answers to reports hold the `meeting` once all have.
The attempt is over when every node's is.

PUT /v1/blobs/{sha256} stores bytes under their digest. HEAD answers 200 with Content-Length when complete, or 404 with
`Upload-Offset` of what is already there. A PUT may start at that offset with the header `Upload-Offset: N`; 409 `upload_offset`
with the right one when it does not fit; 422 `digest_mismatch` when the whole does not hash to its name.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from stoker.status import Desired


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Gpu(Message):
    index: Annotated[int, Field(ge=0, le=1023)]
    uuid: Annotated[str, Field(max_length=128)]
    name: Annotated[str, Field(max_length=128)]
    memory_bytes: Annotated[int, Field(ge=0, le=2**62)]


class Capacity(Message):
    """What a worker has in all."""

    cpus: Annotated[int, Field(ge=0, le=4096)]
    """CPU slots."""
    memory_bytes: Annotated[int, Field(ge=0, le=2**62)]
    gpus: Annotated[tuple[Gpu, ...], Field(max_length=64)] = ()
    tpus: Annotated[int, Field(ge=0, le=64)] = 0
    """Processes that may each have a TPU at once: one where the worker has torch_xla and a TPU, which it gives away whole."""
    backends: Annotated[tuple[Annotated[str, Field(pattern=r"^[a-z0-9_]{1,32}$")], ...], Field(max_length=32)] = ()
    """What its image can do beside what every worker can: horovod."""


class Held(Message):
    """An attempt whose agent this worker knows of."""

    attempt_id: Annotated[str, Field(max_length=64)]
    epoch: Annotated[int, Field(ge=0)]
    alive: bool
    """False once: the agent died without finishing, and its ranks are gone."""


class Heartbeat(Message):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
    """Name of the worker, unique in the installation; it is also its Celery queue."""
    boot_id: Annotated[str, Field(max_length=64)]
    """Changes when the machine restarts: every older attempt there is dead."""
    version: Annotated[str, Field(max_length=64)]
    capacity: Capacity
    held: Annotated[tuple[Held, ...], Field(max_length=1024)] = ()
    warm: bool = False
    """Whether a warm interpreter is ready."""
    address: Annotated[str, Field(max_length=253, pattern=r"^[A-Za-z0-9.:_-]*$")] = ""
    """IP address or name under which other nodes reach this one; without it, it takes no part in jobs of several nodes."""
    load: Annotated[dict[str, float], Field(max_length=64)] = {}
    """cpu_percent, memory_used_bytes, gpu<i>_utilization, gpu<i>_memory_used_bytes …; for display."""


class Assignment(Message):
    attempt_id: str
    epoch: int


class HeartbeatReply(Message):
    worker_id: str
    state: Literal["active", "draining"]
    interval_seconds: float
    """When to send the next one."""
    assigned: tuple[Assignment, ...]
    """Attempts placed here and not yet claimed: launch them (a hint through Celery may have said so before)."""
    stale: tuple[Assignment, ...]
    """Of those held: no longer theirs; kill them."""


class Claim(Message):
    worker: Annotated[str, Field(max_length=128)]
    """Name of the worker."""
    epoch: int
    agent_id: Annotated[str, Field(min_length=8, max_length=64)]
    """Drawn once per agent process."""
    pid: int


class BlobFile(Message):
    path: str
    bytes: int
    sha256: str


class DatasetFiles(Message):
    ref: str
    """As the spec names it, pinned: `digits@3`."""
    files: tuple[BlobFile, ...]


class Resume(Message):
    """The checkpoint to continue from."""

    step: int
    files: tuple[BlobFile, ...]


class Rendezvous(Message):
    """Where the ranks of an attempt on several nodes find each other: node 0's address and a free port there."""

    address: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9.:_-]+$")]
    port: Annotated[int, Field(ge=1, le=65_535)]


class Timers(Message):
    """All in seconds, already scaled."""

    report_interval: float
    lease: float
    self_fence: float
    """Silence after which the agent checkpoints and stops."""
    gone: float
    """Silence after which its ranks are killed whatever they do."""
    stop_grace: float
    """From a request to stop to the kill."""


class ClaimReply(Message):
    job_id: str
    attempt_id: str
    epoch: int
    number: int
    """Which attempt of the job this is, from 1."""
    node: int = 0
    """Which of the attempt's nodes this agent is, from 0. Node 0's speaks for the run; the others send their ranks' logs."""
    nodes: int = 1
    """Workers that run this attempt together, which may be fewer than the spec asked for."""
    token: str
    """Bearer token that writes to this attempt and its blobs only."""
    spec: dict[str, Any]
    """The resolved spec, written to the workspace as spec.json."""
    devices: dict[str, Any]
    """{"device": cpu|cuda|tpu, "cpus": slots, "gpus": [indices], "tpus": n}"""
    datasets: tuple[DatasetFiles, ...]
    resume: tuple[Resume, ...]
    """Checkpoints that may be continued from, newest first; a damaged one falls back to the next. Empty: start fresh."""
    desired: Desired
    timers: Timers


class ReportReply(Message):
    acked_through: int
    """Last frame of the stored prefix; the spool may forget up to here."""
    desired: Desired
    stop_reason: Literal["paused_by_user", "cancelled_by_user", "drained", "time_limit", "peer_lost"] | None = None
    """Why to stop, when it is to stop: end the ranks at a checkpoint (a cancel may skip it) and finish with this reason.
    peer_lost: another node of the attempt is gone, and no rank can go on without it: kill them at once."""
    meeting: Rendezvous | None = None
    """Of an attempt on several nodes, once each has sent its `prepared` frame: start the ranks, they meet there."""


class Finish(Message):
    epoch: int
    reason: Annotated[str, Field(pattern=r"^[a-z_]{1,64}$")]
    """A code of stoker.reasons."""
    message: Annotated[str, Field(max_length=16_384)] = ""
    exit_code: Annotated[int, Field(ge=-1024, le=1024)] | None = None
    step: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    metrics: Annotated[dict[str, float | str], Field(max_length=1000)] = {}
    """Final values; non-finite ones as "NaN", "Infinity", "-Infinity"."""
    last_seq: int
    """Frames the agent numbered; the server refuses to finish before they are stored (409 `frames_missing`)."""
    corrupt_steps: Annotated[tuple[int, ...], Field(max_length=1000)] = ()
    """Checkpoints that were found damaged on resuming."""


class FinishReply(Message):
    state: str
    """State of the job now."""
