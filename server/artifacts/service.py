"""Files that belong to a job's results; a later one of the same name replaces the earlier."""

from sqlalchemy import select
from sqlmodel import Session, col

from server.artifacts.tables import Artifact
from server.attempts.tables import Attempt
from server.blobs import service as blobs
from server.checkpoints.manifest import artifact_of
from server.db import utcnow
from server.errors import not_found
from server.events.service import append_event
from server.jobs.tables import Job
from stoker.frames import Frame
from stoker.views import ArtifactView


def ingest(session: Session, job: Job, attempt: Attempt, frame: Frame) -> Artifact:
    """Keep the file that a frame announces. Raises MissingBlob and 422 `frame_invalid`."""
    file = artifact_of(frame.header)
    owner = f"artifact:{job.id}/{file.name}"
    blobs.release(session, owner)
    blobs.refer(session, job.project, owner, [(file.sha256, file.bytes)])
    row = session.get(Artifact, (job.id, file.name))
    if row is None:
        row = Artifact(job_id=job.id, name=file.name, epoch=0, sha256="", bytes=0, created_at=utcnow())
        session.add(row)
    row.epoch, row.sha256, row.bytes, row.created_at = attempt.epoch, file.sha256, file.bytes, utcnow()
    session.flush()
    append_event(session, job, "artifact", {"name": row.name, "bytes": row.bytes, "sha256": row.sha256})
    return row


def page(session: Session, job_id: str, after: str | None, limit: int) -> list[Artifact]:
    """By name, from after a name."""
    query = select(Artifact).where(col(Artifact.job_id) == job_id)
    if after is not None:
        query = query.where(col(Artifact.name) > after)
    return list(session.scalars(query.order_by(col(Artifact.name)).limit(limit)))


def get(session: Session, job_id: str, name: str) -> Artifact:
    """Raises 404."""
    row = session.get(Artifact, (job_id, name))
    if row is None:
        raise not_found()
    return row


def view(row: Artifact) -> ArtifactView:
    return ArtifactView(name=row.name, bytes=row.bytes, sha256=row.sha256, created_at=row.created_at)
