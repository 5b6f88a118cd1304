"""Claim, report and finish, the requests of an agent; each is refused once the epoch of its attempt is over."""

import hmac
import json
from collections.abc import Sequence
from datetime import timedelta
from itertools import groupby
from typing import Any, Literal

from sqlmodel import Session

from server.attempts import store
from server.attempts.ending import end_attempt
from server.attempts.members import cause
from server.attempts.remedies import SmallerBatches, applied
from server.attempts.reporting import progress_of, put_values, store_frames
from server.attempts.rows import AttemptRow
from server.attempts.tables import Attempt
from server.auth import AttemptPrincipal, attempt_token, digest
from server.blobs.service import MissingBlob
from server.checkpoints import service as checkpoints
from server.db import utcnow
from server.errors import Refusal, not_found, problem
from server.events.service import append_event
from server.jobs import store as jobs
from server.jobs.tables import Job
from server.references.catalog import files_of
from stoker.frames import Frame
from stoker.protocol import Claim, ClaimReply, Finish, FinishReply, Rendezvous, ReportReply, Resume, Timers
from stoker.status import Desired
from stoker.timers import TimerSettings
from stoker.views import AttemptView, NodeView

StopReason = Literal["paused_by_user", "cancelled_by_user", "drained", "time_limit", "peer_lost"]


def stale() -> Refusal:
    return problem(409, "stale_attempt", "The attempt has ended or was replaced by another; stop its processes.")


def _locked(session: Session, attempt_id: str) -> tuple[Job, Attempt]:
    """Job first, then attempt. Raises 404 for an unknown id."""
    job_id = store.job_of(session, attempt_id)
    job = jobs.lock(session, job_id) if job_id is not None else None
    attempt = store.lock(session, attempt_id)
    if job is None or attempt is None:
        raise not_found()
    return job, attempt


def _is_current(job: Job, attempt: Attempt, epoch: int) -> bool:
    return attempt.state != "ended" and attempt.epoch == epoch == job.epoch


def claim(session: Session, attempt_id: str, asked: Claim, pepper: bytes, timers: TimerSettings) -> ClaimReply:
    """Take an attempt for one agent. The same agent gets the same answer again; any other gets 409 `stale_attempt`."""
    job, attempt = _locked(session, attempt_id)
    if not _is_current(job, attempt, asked.epoch) or attempt.worker_name != asked.worker:
        raise stale()
    token = attempt_token(pepper, attempt.id, asked.agent_id)
    if attempt.state == "placed":
        attempt.state, attempt.agent_id, attempt.claimed_at = "claimed", asked.agent_id, utcnow()
        attempt.token_hash = digest(pepper, token)
        attempt.remedy = job.remedy
        data = {"number": attempt.number, "state": "claimed", "worker": attempt.worker_name}
        append_event(session, job, "attempt", data | {"node": attempt.node} if attempt.nodes > 1 else data)
    elif not hmac.compare_digest(attempt.agent_id or "", asked.agent_id):
        raise stale()
    _renew(attempt, timers)
    return _claimed(session, job, attempt, token, timers)


def _claimed(session: Session, job: Job, attempt: Attempt, token: str, timers: TimerSettings) -> ClaimReply:
    spec: dict[str, Any] = json.loads(job.spec)
    resumable = tuple(Resume(step=step, files=files) for step, files in checkpoints.resumable(session, job))
    return ClaimReply(
        job_id=job.id,
        attempt_id=attempt.id,
        epoch=attempt.epoch,
        number=attempt.number,
        node=attempt.node,
        nodes=attempt.nodes,
        token=token,
        spec=applied(spec, attempt.remedy),
        devices=attempt.devices,
        datasets=files_of(session, job.project, spec),
        resume=resumable,
        desired=_desired(job, attempt)[0],
        timers=Timers(
            report_interval=timers.report,
            lease=timers.lease,
            self_fence=timers.self_fence,
            gone=timers.self_fence + timers.stop_grace,
            stop_grace=timers.stop_grace,
        ),
    )


def report(session: Session, who: AttemptPrincipal, epoch: int, frames: list[Frame], timers: TimerSettings) -> ReportReply:
    """Store frames and renew the lease. Raises 409 `stale_attempt`, or 409 `blob_missing` without storing anything."""
    job, attempt = _locked(session, who.attempt_id)
    if not _is_current(job, attempt, epoch):
        raise stale()
    _renew(attempt, timers)
    try:
        store_frames(session, job, attempt, frames)
    except MissingBlob as error:
        raise problem(409, "blob_missing", f"Upload {error.sha256} first; nothing of this report was stored.") from error
    desired, why = _desired(job, attempt)
    return ReportReply(
        acked_through=attempt.acked_through, desired=desired, stop_reason=why, meeting=_rendezvous(session, job, attempt)
    )


def _rendezvous(session: Session, job: Job, attempt: Attempt) -> Rendezvous | None:
    """Where the ranks meet: on node 0, given once every node is prepared, so that no rank waits for a node that never comes."""
    if attempt.nodes == 1 or attempt.meeting is None:
        return None
    session.flush()
    places = store.meetings(session, job.id, attempt.epoch)
    return Rendezvous.model_validate(places[0]) if places and all(p is not None for p in places) else None


def _renew(attempt: Attempt, timers: TimerSettings) -> None:
    attempt.lease_expires_at = max(attempt.lease_expires_at, utcnow() + timedelta(seconds=timers.lease))


def _desired(job: Job, attempt: Attempt) -> tuple[Desired, StopReason | None]:
    """What the agent must do now, and why it must stop."""
    if job.state == "cancelling":
        return "cancel", "cancelled_by_user"
    if job.state == "pausing":
        return "pause", "paused_by_user"
    match attempt.stop_reason:
        case "drained":
            return "pause", "drained"
        case "time_limit":
            return "pause", "time_limit"
        case "peer_lost":
            return "cancel", "peer_lost"
        case _:
            return "run", None


def finish(session: Session, who: AttemptPrincipal, said: Finish) -> FinishReply:
    """End the attempt as its agent says. Raises 409 `stale_attempt`, or 409 `frames_missing` until every frame is stored."""
    job, attempt = _locked(session, who.attempt_id)
    if (
        attempt.state == "ended"
        and attempt.finished_as is not None
        and (attempt.epoch, attempt.reason) == (said.epoch, said.reason)
    ):
        return FinishReply(state=attempt.finished_as)
    if not _is_current(job, attempt, said.epoch):
        raise stale()
    if said.last_seq > attempt.acked_through:
        raise problem(409, "frames_missing", f"Frames after {attempt.acked_through} are not stored yet; report them first.")
    speaks = attempt.node == 0
    if said.metrics and speaks:
        put_values(session, job, {k: v if isinstance(v, str) else float(v) for k, v in said.metrics.items()})
    if said.corrupt_steps:
        checkpoints.mark_corrupt(session, job, list(said.corrupt_steps))
    if said.step is not None and speaks:
        job.progress = {**progress_of(job, attempt, {"step": said.step}), "eta_seconds": None}
    end_attempt(session, job, attempt, said.reason, message=said.message, exit_code=said.exit_code, step=said.step)
    attempt.finished_as = job.state
    return FinishReply(state=job.state)


def views(rows: Sequence[AttemptRow]) -> list[AttemptView]:
    """Attempts from the rows of their nodes, which are sorted by epoch and node."""
    return [_view(list(nodes)) for _, nodes in groupby(rows, key=lambda row: row.epoch)]


def _view(nodes: Sequence[AttemptRow]) -> AttemptView:
    """The attempt as node 0 has it. On several nodes it ended with the last of them, for the reason of the one that was the cause."""
    row = nodes[0]
    over = all(node.state == "ended" for node in nodes)
    last = cause(nodes) if over else row
    return AttemptView(
        id=row.id,
        number=row.number,
        epoch=row.epoch,
        state=row.state if over or row.state != "ended" else "running",
        worker=row.worker_name,
        devices=row.devices,
        placed_at=row.placed_at,
        claimed_at=row.claimed_at,
        started_at=row.started_at,
        ended_at=max(node.ended_at for node in nodes if node.ended_at is not None) if over else None,
        exit_code=last.exit_code if over else None,
        reason=last.reason if over else None,
        message=last.message if over else None,
        resumed_from=row.resumed_from,
        overrides=SmallerBatches.model_validate(row.remedy).overrides if row.remedy else {},
        nodes=[_node(node) for node in nodes],
    )


def _node(row: AttemptRow) -> NodeView:
    return NodeView(
        id=row.id,
        node=row.node,
        worker=row.worker_name,
        state=row.state,
        devices=row.devices,
        claimed_at=row.claimed_at,
        ended_at=row.ended_at,
        exit_code=row.exit_code,
        reason=row.reason,
        message=row.message,
    )
