"""Why an attempt ended, from what its ranks said, how they died, and what was asked of them: a pure function."""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stoker.events import Finished

SUCCESS = frozenset({"completed", "early_stopped"})
EXIT_REASONS = {1: "user_error", 2: "spec_error", 3: "nan_loss", 75: "preempted"}


@dataclass(frozen=True)
class RankEnd:
    """How one rank ended."""

    rank: int
    code: int
    """Exit code, or minus the number of the signal that killed it."""
    order: int
    """0 for those that ended first."""
    by_us: bool = False
    """Whether the agent had begun to kill the group before."""
    finished: Finished | None = None
    stderr: str = ""
    """End of what it wrote to stderr."""


@dataclass(frozen=True)
class Verdict:
    reason: str
    message: str = ""
    exit_code: int | None = None
    step: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


def decide(ends: Sequence[RankEnd], stop: str | None, *, out_of_memory: bool = False) -> Verdict:
    """The verdict over all ranks.

    stop             reason for which the agent asked the ranks to stop, if it did
    out_of_memory    whether the kernel's out-of-memory killer struck on this machine during the attempt
    """
    # Rank 0; on the other nodes of a run, whose word counts only when rank 0 has none, the first of theirs.
    zero = min(ends, key=lambda end: end.rank, default=None)
    if zero and zero.finished and zero.finished.reason in SUCCESS:
        return _said(zero, zero.finished)
    if stop == "cancelled_by_user":
        return _stopped(stop, zero)
    # A rank that was asked to stop before it could listen dies of the request itself.
    asked = {-signal.SIGTERM} if stop else set()
    killed = [end for end in ends if end.code < 0 and end.code not in asked and not end.by_us and end.finished is None]
    if killed and not (stop and _ended_well(zero)):
        return _killed(min(killed, key=lambda end: (end.order, end.rank)), out_of_memory)
    failed = [end for end in ends if not end.by_us and end.code not in {0, 75} | asked]
    if failed:
        return _failed(min(failed, key=_blame))
    if stop:
        return _stopped(stop, zero)
    if zero is None:
        return Verdict("spawn_failed", "no rank was started")
    if zero.finished:
        return _said(zero, zero.finished)
    if zero.code == 75:
        return Verdict("preempted", "the trainer stopped at a checkpoint", 75)
    return Verdict("user_error", f"the trainer ended with exit code {zero.code} and without a verdict", zero.code)


def _blame(end: RankEnd) -> tuple[bool, int, bool, int]:
    """Sorts the cause before its effects: a rank that only lost the others comes last, then who ended first comes first."""
    lost = end.finished is not None and end.finished.reason == "rank_lost"
    return lost, end.order, end.finished is None, end.rank


def _ended_well(zero: RankEnd | None) -> bool:
    return zero is not None and zero.finished is not None and zero.finished.reason == "preempted"


def _said(end: RankEnd, finished: Finished) -> Verdict:
    return Verdict(finished.reason, finished.message, end.code, finished.step, finished.metrics)


def _stopped(stop: str, zero: RankEnd | None) -> Verdict:
    said = zero.finished if zero else None
    code = zero.code if zero else None
    if said is None:
        return Verdict(stop, "", code)
    return Verdict(stop, said.message if said.reason == "preempted" else "", code, said.step, said.metrics)


def _killed(end: RankEnd, out_of_memory: bool) -> Verdict:
    name = _signal_name(-end.code)
    if end.code == -signal.SIGKILL and out_of_memory:
        return Verdict("host_oom", f"rank {end.rank} was killed because the machine ran out of memory", 137)
    return Verdict("rank_lost", f"rank {end.rank} was killed by {name}", 128 - end.code)


def _failed(end: RankEnd) -> Verdict:
    if end.finished and end.finished.reason != "preempted" and end.finished.reason not in SUCCESS:
        return _said(end, end.finished)
    if end.code == 137:
        return Verdict("host_oom", f"rank {end.rank} ended with exit code 137", 137)
    if end.code < 0:
        return Verdict("rank_lost", f"rank {end.rank} was killed by {_signal_name(-end.code)}", 128 - end.code)
    if "EADDRINUSE" in end.stderr:
        return Verdict("rank_lost", f"rank {end.rank} found its rendezvous port taken\n{end.stderr}", end.code)
    reason = EXIT_REASONS.get(end.code, "user_error")
    return Verdict(reason, f"rank {end.rank} ended with exit code {end.code}\n{end.stderr}".rstrip(), end.code)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
