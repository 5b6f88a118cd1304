"""Why an attempt or a job ended: each reason with its end state, whose fault it is, and what to do about it."""

from dataclasses import dataclass
from typing import Literal

Fault = Literal["none", "user", "infra", "server"]


@dataclass(frozen=True)
class Reason:
    """One row of the published catalogue."""

    code: str
    end_state: Literal["succeeded", "failed", "cancelled", "paused", "queued"]
    """State of the job when the attempt ends so and no retry is due."""
    fault: Fault
    retried: bool
    """Whether a new attempt follows while the caps allow it."""
    counts: bool
    """Whether the retry counts against `resources.max_retries`; the others count against the cap of 20 for infrastructure."""
    hint: str


_ALL = (
    Reason("completed", "succeeded", "none", False, False, "The run reached its end."),
    Reason("early_stopped", "succeeded", "none", False, False, "Validation stopped improving, as training.early_stopping asked."),
    Reason(
        "cancelled_by_user",
        "cancelled",
        "none",
        False,
        False,
        "Somebody asked for it; `stoker retry` starts it again from its last checkpoint.",
    ),
    Reason(
        "paused_by_user",
        "paused",
        "none",
        False,
        False,
        "Somebody asked for it; `stoker resume` continues from the checkpoint made on pausing.",
    ),
    Reason(
        "preempted",
        "queued",
        "infra",
        True,
        False,
        "The worker was told to stop; the job continues elsewhere from its checkpoint.",
    ),
    Reason(
        "drained", "queued", "infra", True, False, "The worker is being drained; the job continues elsewhere from its checkpoint."
    ),
    Reason("spec_error", "failed", "user", False, False, "The spec cannot be built; the message names the field."),
    Reason(
        "data_error", "failed", "user", False, False, "The data set does not fit the spec; the message names the column or file."
    ),
    Reason("user_error", "failed", "user", True, True, "The trainer raised; read the traceback in the job's logs."),
    Reason(
        "nan_loss",
        "failed",
        "user",
        False,
        False,
        "The loss is no longer a number; lower optimizer.lr, add gradient_clipping or warm-up.",
    ),
    Reason(
        "cuda_oom",
        "failed",
        "user",
        True,
        True,
        "The GPU is out of memory; lower training.micro_batch_size; `stoker plan` shows what fits.",
    ),
    Reason(
        "host_oom", "failed", "user", True, True, "The machine is out of memory; lower the batch or ask for resources.memory_gb."
    ),
    Reason(
        "rank_lost",
        "failed",
        "infra",
        True,
        False,
        "A training process was killed from outside; the job resumes from its last checkpoint.",
    ),
    Reason(
        "hang",
        "failed",
        "infra",
        True,
        True,
        "No rank made progress for debug.hang_timeout_seconds; every rank's stack is in its log, and the job resumes from its last checkpoint.",
    ),
    Reason(
        "agent_lost",
        "failed",
        "infra",
        True,
        False,
        "The process that watches the run died; the job resumes from its last checkpoint.",
    ),
    Reason(
        "node_lost",
        "failed",
        "infra",
        True,
        False,
        "The worker was silent for longer than the lease; the job resumes from its last checkpoint.",
    ),
    Reason(
        "peer_lost",
        "failed",
        "infra",
        True,
        False,
        "Another node of the run is gone, and no node goes on without it; the job resumes from its last checkpoint.",
    ),
    Reason(
        "self_fenced",
        "queued",
        "infra",
        True,
        False,
        "The worker could not reach the server, saved and stopped before its lease ended.",
    ),
    Reason(
        "spawn_failed",
        "failed",
        "infra",
        True,
        False,
        "The worker could not start the run's processes; look at the worker's log.",
    ),
    Reason(
        "disk_full",
        "paused",
        "infra",
        True,
        False,
        "The worker's disk is full, also after it cleared away what it could; free space in its state directory, then resume the job.",
    ),
    Reason("upload_failed", "failed", "infra", True, False, "A checkpoint could not be stored; look at the server's blob store."),
    Reason(
        "no_valid_checkpoint",
        "failed",
        "infra",
        False,
        False,
        "Every checkpoint of the job is damaged; `stoker retry --from-start` begins again.",
    ),
    Reason("time_limit", "failed", "user", False, False, "resources.time_limit_seconds passed; the last checkpoint is kept."),
    Reason(
        "poison",
        "failed",
        "user",
        False,
        False,
        "The same failure came twice at the same step; another attempt would end the same way.",
    ),
    Reason("server_error", "failed", "server", True, False, "The server failed; its log has the request id."),
)

REASONS: dict[str, Reason] = {r.code: r for r in _ALL}
"""The catalogue, by code. Open: readers must accept codes they do not know."""

INFRA_CAP = 20
"""Attempts that failures outside the user's control may use up; then the job fails with the last reason."""


def reason(code: str) -> Reason:
    """The row of a code; an unknown one is an infrastructure failure that is retried.

    Raises nothing: an older server must survive a newer agent.
    """
    return REASONS.get(code) or Reason(code, "failed", "infra", True, True, "Unknown to this version of Stoker.")
