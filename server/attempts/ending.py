"""How attempts end, and what that means for their job. Every end goes through `end_attempt`."""

import json
from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session

from server.attempts.members import PEER_LOST, PLANNED, cause, live_members, members, stop_the_others
from server.attempts.remedies import MOST, OUT_OF_MEMORY, SmallerBatches, smaller
from server.attempts.tables import Attempt
from server.datasets.service import facts_of
from server.db import utcnow
from server.errors import Refusal
from server.events.service import append_event
from server.hub import work_appeared
from server.jobs.moves import end_job, park, requeue
from server.jobs.tables import Job
from stoker.facts import DatasetFacts
from stoker.reasons import INFRA_CAP, Reason, reason
from stoker.timers import timers_from_environment

MAX_DOUBLINGS = 6


def end_unclaimed(session: Session, job: Job, code: str) -> None:
    """End placed attempts at once: no agent runs them yet, and a later claim gets 409."""
    for attempt in live_members(session, job):
        if attempt.state == "placed":
            cut_off(session, job, attempt, code)


def cut_off(session: Session, job: Job, attempt: Attempt, code: str, message: str = "") -> None:
    """End an attempt whose agent did not finish it. Its devices are free, and its agent gets 409 from now on."""
    end_attempt(session, job, attempt, code, message=message, step=_step(job))


def end_attempt(
    session: Session,
    job: Job,
    attempt: Attempt,
    code: str,
    *,
    message: str = "",
    exit_code: int | None = None,
    step: int | None = None,
) -> None:
    """Close the attempt and move its job on, as the catalog of reasons says. Both are locked, live and of the same epoch.

    An attempt on several nodes is closed node by node. The job moves on with the last of them, for the reason of the node that
    was the cause (`members.cause`). Nodes that no agent has claimed are closed with the first.
    """
    if attempt.nodes > 1:
        _end_member(session, job, attempt, code, message, exit_code, step)
        return
    _close(attempt, code, message, exit_code, step)
    append_event(session, job, "attempt", _ended(attempt, step))
    _move_on(session, job, reason(code), message, step)
    work_appeared(session)


def _end_member(
    session: Session, job: Job, attempt: Attempt, code: str, message: str, exit_code: int | None, step: int | None
) -> None:
    _close(attempt, code, message, exit_code, step)
    append_event(session, job, "attempt", _ended(attempt, step))
    everyone = members(session, job)
    for other in everyone:
        if other.state == "placed":
            _close(other, code if code in PLANNED else PEER_LOST, "", None, None)
            append_event(session, job, "attempt", _ended(other, None))
    stop_the_others(everyone, code)
    work_appeared(session)
    if all(member.state == "ended" for member in everyone):
        first = cause(everyone)
        text = first.message or ""
        told = f"node {first.node} ({first.worker_name}): {text}" if text and first.node else text
        _move_on(session, job, reason(first.reason or code), told, everyone[0].last_step)


def _close(attempt: Attempt, code: str, message: str, exit_code: int | None, step: int | None) -> None:
    attempt.state, attempt.ended_at, attempt.reason, attempt.message = "ended", utcnow(), code, message or None
    attempt.exit_code, attempt.last_step = exit_code, step if step is not None else attempt.last_step


def _ended(attempt: Attempt, step: int | None) -> dict[str, Any]:
    """The data of its last event."""
    data = {"number": attempt.number, "state": "ended", "worker": attempt.worker_name, "reason": attempt.reason, "step": step}
    data |= {"exit_code": attempt.exit_code, "message": attempt.message}
    return data | {"node": attempt.node} if attempt.nodes > 1 else data


def _move_on(session: Session, job: Job, why: Reason, message: str, step: int | None) -> None:
    text = message or None
    if why.end_state == "succeeded":
        end_job(session, job, "succeeded", why.code, text)
    elif job.state == "cancelling":
        end_job(session, job, "cancelled", "cancelled_by_user", text)
    elif (remedy := _remedy(session, job, why)) is not None:
        _take_smaller_batches(session, job, remedy, why, text, step)
    elif (final := _verdict(job, why, step)) is not None:
        _give_up(session, job, final, text)
    elif job.state == "pausing" and job.desired == "pause":
        park(session, job, "paused_by_user", text)
    else:
        requeue(session, job, reason=why.code, message=text, not_before=_backoff(job, why), **_counters(job))


def _give_up(session: Session, job: Job, code: str, text: str | None) -> None:
    """Pause the job when its reason can be put right from outside, else fail it."""
    if reason(code).end_state != "paused":
        end_job(session, job, "failed", code, text)
        return
    requeue(session, job, reason=code, message=text, last_failure=None)
    park(
        session,
        job,
        code,
        f"{text or reason(code).hint} The job is paused: `stoker resume` continues it from its last checkpoint.",
    )


def _remedy(session: Session, job: Job, why: Reason) -> SmallerBatches | None:
    """How the next attempt divides its batches, when smaller ones may help."""
    return smaller(job.spec, job.remedy, _facts(session, job)) if why.code in OUT_OF_MEMORY else None


def _facts(session: Session, job: Job) -> DatasetFacts | None:
    """Facts about the job's data set; None when it was deleted."""
    try:
        return facts_of(session, job.project, json.loads(job.spec)["data"]["source"]["dataset"])
    except Refusal:
        return None


def _take_smaller_batches(
    session: Session, job: Job, remedy: SmallerBatches, why: Reason, text: str | None, step: int | None
) -> None:
    """The failure does not count against the retries, because the next attempt differs."""
    micro, accumulation = remedy.micro_batch_size, remedy.gradient_accumulation_steps
    message = f"{why.code}: the next attempt runs micro-batches of {micro} samples, {accumulation} per step and rank"
    data = {"reason": why.code, "most": MOST, **remedy.model_dump()}
    append_event(
        session, job, "notice", {"level": "warning", "code": "micro_batch_halved", "message": message, "step": step, "data": data}
    )
    requeue(session, job, reason=why.code, message=text, remedy=remedy.model_dump(), last_failure=None)


def _verdict(job: Job, why: Reason, step: int | None) -> str | None:
    """The reason for which the job fails now, or None when it goes on; counts the failure."""
    if why.code in PLANNED:
        return None
    if not why.retried:
        return why.code
    if why.end_state == "paused":
        return _once(job, why, step)
    if not why.counts:
        job.infra_failures += 1
        return why.code if job.infra_failures > INFRA_CAP else None
    job.counted_failures += 1
    last, job.last_failure = job.last_failure, f"{why.code}@{step}"
    if last == job.last_failure and step is not None:
        return "poison"
    return why.code if job.counted_failures > _max_retries(job) else None


def _once(job: Job, why: Reason, step: int | None) -> str | None:
    """One more attempt, for which the worker has cleared what the failed one used; the same failure again ends the job."""
    before, job.last_failure = job.last_failure, f"{why.code}@{step}"
    job.infra_failures += 1
    return why.code if (before or "").partition("@")[0] == why.code else None


def _max_retries(job: Job) -> int:
    retries: int = json.loads(job.spec)["resources"]["max_retries"]
    return retries


def _backoff(job: Job, why: Reason) -> datetime | None:
    """When the job may be placed again: at once after a planned stop or the first loss of a machine, else after a doubling wait."""
    if why.code in PLANNED:
        return None
    failures = job.counted_failures if why.counts else job.infra_failures - 1
    if failures <= 0:
        return None
    unit = timers_from_environment().backoff
    return utcnow() + timedelta(seconds=min(unit * 2 ** min(failures - 1, MAX_DOUBLINGS), 60 * unit))


def _counters(job: Job) -> dict[str, Any]:
    return {"counted_failures": job.counted_failures, "infra_failures": job.infra_failures, "last_failure": job.last_failure}


def _step(job: Job) -> int | None:
    step: int | None = job.progress.get("step")
    return step
