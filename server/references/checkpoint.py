"""Checkpoints of other jobs, as documents name them."""

from collections.abc import Iterable
from typing import Any, TypeGuard

from sqlalchemy import select
from sqlmodel import Session

from server.checkpoints import service as checkpoints
from server.checkpoints.tables import Checkpoint
from server.errors import Refusal
from server.jobs import store
from server.jobs.rows import WholeJobRow
from server.references.pointer import Fields
from server.references.reference import Asked
from stoker.document.strict_json import JsonValue
from stoker.protocol import BlobFile

MOST_CHARACTERS = 100
"""Longest job id in a document."""


def is_named(named: JsonValue) -> TypeGuard[Fields]:
    """Whether a value of a document is a reference to a job's checkpoint, as far as its job goes."""
    return isinstance(named, dict) and isinstance(named.get("job"), str) and len(named["job"]) <= MOST_CHARACTERS


def job_of(session: Session, asked: Asked, job_id: str) -> WholeJobRow | None:
    """A job of the project that the document is for."""
    try:
        job = store.whole_job(session, asked.who, job_id)
    except Refusal:
        return None
    return job if job.project == asked.project else None


def checkpoint_of(session: Session, job: WholeJobRow, which: str) -> Checkpoint:
    """Raises Refusal when the job has no such checkpoint or its bytes may not be read."""
    return checkpoints.readable(checkpoints.find(session, job, which))


def files_of(session: Session, job_id: str, step: int) -> tuple[BlobFile, ...]:
    """Files of a pinned checkpoint; none when it was deleted."""
    job = session.execute(select(store.JOBS).where(store.JOBS.c.id == job_id)).one_or_none()
    try:
        return () if job is None else blob_files(checkpoint_of(session, job, str(step)).files)
    except Refusal:
        return ()


def blob_files(files: Iterable[dict[str, Any]]) -> tuple[BlobFile, ...]:
    """Rows carry more than a worker is told."""
    return tuple(BlobFile(path=f["path"], bytes=f["bytes"], sha256=f["sha256"]) for f in files)
