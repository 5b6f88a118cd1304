"""The nodes of one attempt: their rows, how the end of one stops the others, and which end is the cause."""

from collections.abc import Sequence
from datetime import timedelta

from sqlmodel import Session, col, select

from server.attempts.rows import AttemptRow
from server.attempts.tables import Attempt
from server.db import utcnow
from server.jobs.tables import Job
from stoker.reasons import reason
from stoker.timers import timers_from_environment

PLANNED = ("drained", "preempted", "paused_by_user", "cancelled_by_user")
"""Requested stops: they use up no retries and need no backoff."""
PEER_LOST = "peer_lost"
_CONSEQUENCES = {"rank_lost": 1, PEER_LOST: 2}
"""Reasons that follow from the end of another node; the more certain, the higher."""
_SUCCEEDED = 3
"""A node that succeeded never explains a failure."""


def members(session: Session, job: Job, epoch: int | None = None) -> list[Attempt]:
    """Every node of the job's attempt of an epoch, the newest if none is named, by number; locked. Lock the job first."""
    session.flush()
    mine = (col(Attempt.job_id) == job.id, col(Attempt.epoch) == (job.epoch if epoch is None else epoch))
    query = select(Attempt).where(*mine).order_by(col(Attempt.node)).with_for_update()
    return list(session.scalars(query.execution_options(populate_existing=True)))


def live_members(session: Session, job: Job) -> list[Attempt]:
    """The nodes of the newest attempt that hold devices."""
    return [member for member in members(session, job) if member.state != "ended"]


def ask_to_stop(attempts: Sequence[Attempt], why: str, seconds: float) -> None:
    """Ask nodes to stop, except those asked before; after the seconds they are cut off."""
    for attempt in attempts:
        if attempt.stop_reason is None:
            attempt.stop_reason = why
            attempt.stop_deadline = utcnow() + timedelta(seconds=seconds)


def stop_the_others(everyone: Sequence[Attempt], code: str) -> None:
    """One node has ended for a reason: stop the others.

    After a success or a requested stop every node ends by itself, and gets one lease to do so. After any other reason their
    ranks wait for ranks that are gone, so they are asked to stop at once.
    """
    others = [a for a in everyone if a.state != "ended"]
    ends_by_itself = code in PLANNED or reason(code).end_state == "succeeded"
    lease = timers_from_environment().lease
    if ends_by_itself and all(a.meeting is not None for a in everyone):
        until = utcnow() + timedelta(seconds=lease)
        for attempt in others:
            attempt.stop_deadline = min(attempt.stop_deadline or until, until)
    else:
        ask_to_stop(others, PEER_LOST, lease)


def cause(ended: Sequence[AttemptRow]) -> AttemptRow:
    """The node whose end is the attempt's: node 0 after a success or a requested stop, else the first that no other end explains."""
    lead = min(ended, key=lambda a: a.node)
    if lead.reason in PLANNED or _is_success(lead):
        return lead
    return min(ended, key=lambda a: (_blame(a), a.ended_at or utcnow(), a.node))


def _is_success(attempt: AttemptRow) -> bool:
    return attempt.reason is not None and reason(attempt.reason).end_state == "succeeded"


def _blame(attempt: AttemptRow) -> int:
    return _SUCCEEDED if _is_success(attempt) else _CONSEQUENCES.get(attempt.reason or "", 0)
