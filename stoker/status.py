"""The states of a job and of an attempt, and the transitions between them. Nothing else may change a state."""

from typing import Literal

JobState = Literal[
    "queued", "starting", "running", "finishing", "pausing", "paused", "cancelling", "succeeded", "failed", "cancelled"
]
Outcome = Literal["completed", "early_stopped", "gate_failed", "pruned", "metrics_missing"]
Desired = Literal["run", "pause", "cancel"]
AttemptState = Literal["placed", "claimed", "running", "ended"]
CheckpointState = Literal["available", "corrupt", "expired"]

TERMINAL: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})
LIVE: frozenset[str] = frozenset({"starting", "running", "finishing", "pausing", "cancelling"})
"""States in which an attempt holds devices."""

TRANSITIONS: dict[str, frozenset[str]] = {
    "queued": frozenset({"starting", "paused", "cancelled", "failed"}),
    "starting": frozenset({"running", "finishing", "queued", "pausing", "cancelling", "failed", "succeeded"}),
    "running": frozenset({"finishing", "queued", "pausing", "cancelling", "succeeded", "failed"}),
    "finishing": frozenset({"succeeded", "failed", "queued", "cancelling", "cancelled"}),
    "pausing": frozenset({"paused", "queued", "cancelling", "succeeded", "failed"}),
    "paused": frozenset({"queued", "cancelled"}),
    "cancelling": frozenset({"cancelled", "succeeded", "failed"}),
    "succeeded": frozenset(),
    "failed": frozenset({"queued"}),
    "cancelled": frozenset({"queued"}),
}
"""From each state, where a job may go. `failed` and `cancelled` leave only by an explicit retry."""


def is_terminal(state: str) -> bool:
    return state in TERMINAL


def may_go(current: str, target: str) -> bool:
    """Whether the table allows the step."""
    return target in TRANSITIONS.get(current, frozenset())
