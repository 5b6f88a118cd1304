"""What an attempt reports: frames stored once each, in order, and what they change of the job."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlmodel import Session

from server.artifacts import service as artifacts
from server.attempts.headers import Notice, Phase, Prepared, Progress, Started, header_of
from server.attempts.members import members
from server.attempts.tables import Attempt
from server.checkpoints import service as checkpoints
from server.db import utcnow
from server.errors import problem
from server.events.service import append_event, transition
from server.jobs import store as jobs
from server.jobs.tables import Job
from server.logs import service as logs
from server.metrics import service as metrics
from stoker.frames import BadFrame, Frame, decode

Value = float | str
ROLLED_BACK = "rolled_back"
"""Code of the notice of a run that went back to a checkpoint by itself; `to` in its data is the step."""
RUN_FRAMES = ("metrics", "progress", "started", "phase", "checkpoint", "artifact")
"""Frames that only node 0 of an attempt may send."""


@dataclass
class Gathered:
    """What the frames of one report say about the job, written once."""

    last: dict[str, Value] = field(default_factory=dict)
    step: int | None = None
    progress: dict[str, Any] = field(default_factory=dict)


def frames_of(body: bytes) -> list[Frame]:
    """Raises 400 `bad_frame` for bytes that are not whole frames."""
    try:
        return list(decode(body))
    except BadFrame as error:
        raise problem(400, "bad_frame", "The report is not a sequence of whole frames.") from error


def store_frames(session: Session, job: Job, attempt: Attempt, frames: Sequence[Frame]) -> None:
    """Store the frames that continue the stored prefix. Frames stored before are skipped, and so are those after a gap."""
    gathered = Gathered()
    for frame in _next_ones(attempt.acked_through, frames):
        try:
            _store(session, job, attempt, frame, gathered)
        except KeyError as error:
            raise problem(400, "bad_frame", f"{frame.kind[:16]} frame: field {str(error)[:64]} is missing") from error
        except (TypeError, ValueError) as error:
            raise problem(400, "bad_frame", f"{frame.kind[:16]} frame: a field has the wrong type or length") from error
        attempt.acked_through = frame.seq
    _write(session, job, attempt, gathered)


def _next_ones(acked: int, frames: Sequence[Frame]) -> Iterator[Frame]:
    for frame in frames:
        if frame.seq == acked + 1:
            acked += 1
            yield frame
        elif frame.seq > acked:
            return


def _store(session: Session, job: Job, attempt: Attempt, frame: Frame, gathered: Gathered) -> None:
    head = frame.header
    if attempt.node and frame.kind in RUN_FRAMES:
        raise problem(422, "frame_invalid", f"Node {attempt.node} sent a {frame.kind} frame; only node 0 reports the run.")
    match frame.kind:
        case "metrics":
            gathered.last.update(metrics.ingest(session, job, attempt, frame))
            gathered.step = int(head["last_step"])
        case "logs":
            logs.ingest(session, job, attempt, frame)
        case "progress":
            gathered.progress = header_of(Progress, head).model_dump()
        case "started":
            _started(session, job, attempt, header_of(Started, head))
        case "phase":
            _phase(session, job, header_of(Phase, head).name)
        case "checkpoint":
            checkpoints.ingest(session, job, attempt, frame)
            if head["final"] and job.state == "running":
                transition(session, job, "finishing")
        case "artifact":
            artifacts.ingest(session, job, attempt, frame)
        case "prepared":
            attempt.meeting = header_of(Prepared, head).model_dump()
        case "notice":
            _notice(session, job, attempt, frame, header_of(Notice, head), gathered)
        case _:
            pass  # of a newer agent: acknowledged, or it would be sent again for ever


def _started(session: Session, job: Job, attempt: Attempt, said: Started) -> None:
    step = said.step
    attempt.state, attempt.started_at, attempt.started_step, attempt.resumed_from = "running", utcnow(), step, step or None
    job.progress = {**job.progress, "step": step, "total_steps": said.total_steps}
    if job.started_at is None:
        job.started_at = utcnow()
    if job.state == "starting":
        transition(session, job, "running", phase="training")
    for member in members(session, job) if attempt.nodes > 1 else ():
        if member.state == "claimed":
            member.state = "running"
    data = {"number": attempt.number, "state": "running", "worker": attempt.worker_name}
    append_event(session, job, "attempt", data | said.model_dump())


def _notice(session: Session, job: Job, attempt: Attempt, frame: Frame, said: Notice, gathered: Gathered) -> None:
    append_event(session, job, "notice", said.model_dump())
    back = said.data.get("to")
    if said.code == ROLLED_BACK and isinstance(back, int) and back >= 0 and attempt.node == 0:
        attempt.rewinds = [*(attempt.rewinds or []), [frame.seq, back]]
        session.flush()
        metrics.rewind(session, job)
        gathered.last, gathered.step, gathered.progress = {}, None, {}


def _phase(session: Session, job: Job, name: str) -> None:
    if job.phase != name:
        job.phase = name
        append_event(session, job, "phase", {"name": name})


def _write(session: Session, job: Job, attempt: Attempt, gathered: Gathered) -> None:
    """The report's numbers on the job row, where they can be searched, and as one event."""
    if not gathered.last and not gathered.progress:
        return
    _index(session, job, gathered.last)
    step = gathered.progress.get("step", gathered.step)
    if step is not None:
        attempt.last_step = int(step)
        job.progress = progress_of(job, attempt, {**gathered.progress, "step": int(step)})
    append_event(session, job, "metrics", {"step": gathered.step, "values": gathered.last, "progress": job.progress})


def put_values(session: Session, job: Job, values: Mapping[str, Value]) -> None:
    """Last values of metrics, on the row and in the index."""
    job.metrics = {**job.metrics, **values}
    _index(session, job, values)


def _index(session: Session, job: Job, values: Mapping[str, Value]) -> None:
    finite = {k: float(v) for k, v in values.items() if not isinstance(v, str) and math.isfinite(v)}
    jobs.put_metrics(session, job.id, job.project, finite)


def progress_of(job: Job, attempt: Attempt, now: Mapping[str, Any]) -> dict[str, Any]:
    """Progress with its fraction and the seconds left at this attempt's pace."""
    merged = {**job.progress, **now}
    step, total = int(merged["step"]), merged.get("total_steps")
    merged["fraction"] = min(1.0, step / total) if total else None
    merged["eta_seconds"] = None
    if total and attempt.started_at is not None and attempt.started_step is not None and step > attempt.started_step:
        pace = (utcnow() - attempt.started_at).total_seconds() / (step - attempt.started_step)
        merged["eta_seconds"] = round(pace * max(0, total - step), 1)
    return merged
