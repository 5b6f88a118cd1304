"""Committed checkpoints: accepted whole, kept by policy, offered newest first to attempts that continue the job."""

import json
import math
from collections.abc import Iterable, Sequence

from sqlalchemy import select
from sqlmodel import Session, col

from server.attempts.tables import Attempt
from server.blobs import service as blobs
from server.checkpoints import store
from server.checkpoints.manifest import manifest_of
from server.checkpoints.retention import Kept, ranked, superfluous
from server.checkpoints.tables import Checkpoint, CheckpointHold
from server.db import new_id, utcnow
from server.errors import not_found, problem
from server.events.service import append_event
from server.jobs.rows import JobRow, WholeJobRow
from server.jobs.tables import Job
from server.metrics.lineage import lineage_of
from stoker.frames import Frame
from stoker.protocol import BlobFile
from stoker.spec.checkpoint import Checkpoint as Policy
from stoker.status import TERMINAL
from stoker.views import CheckpointView, FileView

BEFORE = 0
"""Epoch of the checkpoint that a continued job was given: no attempt has it."""


def ingest(session: Session, job: Job, attempt: Attempt, frame: Frame) -> Checkpoint:
    """Commit the checkpoint that a frame announces, then expire those that the policy no longer keeps.

    The caller has checked that the frame is the attempt's next. Raises MissingBlob when a file is not stored whole and 422
    `frame_invalid`; then nothing is committed and nothing expires.
    """
    manifest = manifest_of(frame.header)
    row = Checkpoint(
        id=new_id("ckp"),
        job_id=job.id,
        step=manifest.step,
        epoch=attempt.epoch,
        final=manifest.final,
        bytes=sum(f.bytes for f in manifest.files),
        files=[f.model_dump() for f in sorted(manifest.files, key=lambda f: f.path)],
        metrics=dict(manifest.metrics),
        created_at=utcnow(),
    )
    blobs.refer(session, job.project, _owner(row), [(f.sha256, f.bytes) for f in manifest.files])
    session.add(row)
    session.flush()
    _retain(session, job)
    data = {"step": row.step, "bytes": row.bytes, "final": row.final, "metrics": row.metrics}
    append_event(session, job, "checkpoint", data)
    return row


def resumable(session: Session, job: Job) -> list[tuple[int, tuple[BlobFile, ...]]]:
    """(step, files) of what the job may continue from, newest first: available, of the accepted lineage."""
    return [(c.step, tuple(BlobFile.model_validate(f) for f in c.files)) for c in accepted(session, job)]


def mark_corrupt(session: Session, job: Job, steps: Iterable[int]) -> None:
    """An agent found these damaged: never offer them again. Their bytes stay until a newer checkpoint is committed."""
    damaged = set(steps)
    for row in accepted(session, job):
        if row.step in damaged:
            row.state = "corrupt"
    session.flush()


def accepted(session: Session, job: JobRow) -> list[Checkpoint]:
    """Available checkpoints of the accepted lineage, newest first, one per step."""
    lineage, seen, found = lineage_of(session, job.id), set[int](), []
    for row in store.with_states(session, job.id, ["available"]):
        if (
            row.step <= lineage.cutoff(row.epoch)
            and (row.epoch > job.start_epoch or row.epoch == BEFORE)
            and row.step not in seen
        ):
            seen.add(row.step)
            found.append(row)
    return found


def _retain(session: Session, job: Job) -> None:
    """Expire what the policy no longer keeps, what a newer attempt trained again, and what is damaged."""
    policy = _policy(job)
    lineage = accepted(session, job)
    superseded = {c.id for c in store.with_states(session, job.id, ["available", "corrupt"])} - {c.id for c in lineage}
    gone = superseded | set(superfluous([_kept(c, policy) for c in lineage], policy, _mode(job, policy), _pinned(session, job)))
    for row in store.with_states(session, job.id, ["available", "corrupt"]):
        if row.id in gone:
            row.state = "expired" if row.state == "available" else row.state
            blobs.release(session, _owner(row))
    session.flush()


def _policy(job: WholeJobRow) -> Policy:
    return Policy.model_validate_json(json.dumps(json.loads(job.spec).get("checkpoint", {})))


def _mode(job: WholeJobRow, policy: Policy) -> str:
    return policy.mode or (job.objective or {}).get("mode") or "min"


def _pinned(session: Session, job: Job) -> frozenset[int]:
    """Steps that a live attempt continues from, or another job that has not ended starts from."""
    live = select(col(Attempt.resumed_from)).where(col(Attempt.job_id) == job.id, col(Attempt.state) != "ended")
    held = (
        select(col(Checkpoint.step))
        .join(CheckpointHold, col(CheckpointHold.checkpoint_id) == col(Checkpoint.id))
        .join(Job, col(Job.id) == col(CheckpointHold.job_id))
        .where(col(Checkpoint.job_id) == job.id, col(Job.state).not_in(TERMINAL))
    )
    return frozenset(step for step in (*session.scalars(live), *session.scalars(held)) if step is not None)


def hold(session: Session, job_id: str, checkpoint_id: str) -> None:
    """Keep a checkpoint until a job has ended, which starts from its weights."""
    session.add(CheckpointHold(job_id=job_id, checkpoint_id=checkpoint_id))


def give(session: Session, job_id: str, project: str, checkpoint_id: str) -> None:
    """Give a new job a checkpoint to continue from: a manifest of the same files, which outlives the job that made them."""
    made = session.get_one(Checkpoint, checkpoint_id)
    row = Checkpoint(
        id=new_id("ckp"),
        job_id=job_id,
        step=made.step,
        epoch=BEFORE,
        bytes=made.bytes,
        files=made.files,
        metrics=made.metrics,
        created_at=utcnow(),
    )
    blobs.refer(session, project, _owner(row), [(f["sha256"], f["bytes"]) for f in row.files])
    session.add(row)


def _kept(row: Checkpoint, policy: Policy) -> Kept:
    value = row.metrics.get(policy.monitor)
    finite = isinstance(value, int | float) and math.isfinite(value)
    return Kept(row.id, row.step, row.final or row.epoch == BEFORE, float(value) if finite and value is not None else None)


def _owner(row: Checkpoint) -> str:
    return f"checkpoint:{row.id}"


def tags_of(session: Session, job: WholeJobRow) -> dict[str, list[str]]:
    """By id: best, last, final."""
    policy, lineage = _policy(job), accepted(session, job)
    tags: dict[str, list[str]] = {c.id: [] for c in lineage}
    for best in ranked([_kept(c, policy) for c in lineage], _mode(job, policy))[:1]:
        tags[best.id].append("best")
    if lineage:
        tags[lineage[0].id].append("last")
    for row in lineage:
        if row.final:
            tags[row.id].append("final")
    return tags


def find(session: Session, job: WholeJobRow, which: str) -> Checkpoint:
    """By step, or by tag: best, last, final. A step may be a tombstone. Raises 404."""
    if which in ("best", "last", "final"):
        tags = tags_of(session, job)
        row = next((c for c in accepted(session, job) if which in tags[c.id]), None)
    else:
        of_step = [c for c in store.of_job(session, job.id) if c.step == int(which)]
        live = [c for c in accepted(session, job) if c.step == int(which)]
        row = next(iter(live or of_step), None)
    if row is None:
        raise not_found()
    return row


def readable(row: Checkpoint) -> Checkpoint:
    """The checkpoint, when its bytes may be read. Raises 404 `checkpoint_expired` or 409 `checkpoint_corrupt`."""
    match row.state:
        case "available":
            return row
        case "corrupt":
            raise problem(409, "checkpoint_corrupt", "A worker found this checkpoint damaged; use another one.")
        case _:
            raise problem(
                404, "checkpoint_expired", "The checkpoint policy of the job has deleted this checkpoint; use another one."
            )


def view(row: Checkpoint, tags: dict[str, list[str]], *, files: bool = False) -> CheckpointView:
    return CheckpointView(
        step=row.step,
        epoch=row.epoch,
        state=row.state,
        bytes=row.bytes,
        metrics=row.metrics,
        tags=tags.get(row.id, []),
        created_at=row.created_at,
        files=[FileView.model_validate(f) for f in row.files] if files else [],
    )


def views(session: Session, job: WholeJobRow, rows: Sequence[Checkpoint]) -> list[CheckpointView]:
    tags = tags_of(session, job)
    return [view(row, tags) for row in rows]
