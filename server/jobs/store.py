"""Queries over jobs. Reading returns Core rows; `lock` returns the object that the current write may change."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, bindparam, delete, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session

from server.auth import Principal
from server.db import Encoded
from server.errors import not_found
from server.jobs.rows import JobRow, PendingJob, WholeJobRow
from server.jobs.tables import Job, JobLabel, JobMetric

JOBS = Job.metadata.tables["jobs"]
LABELS = JobLabel.metadata.tables["job_labels"]
METRICS = JobMetric.metadata.tables["job_metrics"]
_LARGE = {"submitted", "spec", "origins", "plan"}
SUMMARY = [c for c in JOBS.c if c.name not in _LARGE]
"""Columns of a job in a list."""


def visible_job(session: Session, who: Principal, job_id: str) -> JobRow:
    """The job's row. Raises 404 for an unknown id, and the same for an id of another project."""
    row = session.execute(select(*SUMMARY).where(JOBS.c.id == job_id)).one_or_none()
    if row is None or not who.sees(row.project):
        raise not_found()
    return row


def whole_job(session: Session, who: Principal, job_id: str) -> WholeJobRow:
    """`visible_job` with its documents and plan."""
    row = session.execute(select(JOBS).where(JOBS.c.id == job_id)).one_or_none()
    if row is None or not who.sees(row.project):
        raise not_found()
    return row


def lock(session: Session, job_id: str) -> Job | None:
    """The job for this write alone until its commit."""
    return session.get(Job, job_id, with_for_update=True, populate_existing=True)


def lock_visible(session: Session, who: Principal, job_id: str) -> Job:
    job = lock(session, job_id)
    if job is None or not who.sees(job.project):
        raise not_found()
    return job


_INSERT, _INSERT_LABELS = insert(JOBS), insert(LABELS)


def add(session: Session, rows: list[dict[str, Any]]) -> None:
    """Insert jobs with their labels, which may be JSON text already. The values are parameters: compiled once."""
    session.connection().execute(_INSERT, rows)
    labelled = [(row, _mapping(row["labels"])) for row in rows if row["labels"] != _NO_LABELS]
    put = [_label(row["id"], row["project"], k, v) for row, labels in labelled for k, v in labels.items()]
    if put:
        session.connection().execute(_INSERT_LABELS, put)


_NO_LABELS = Encoded("{}")


def _mapping(labels: dict[str, str] | Encoded) -> dict[str, str]:
    decoded: dict[str, str] = json.loads(labels) if isinstance(labels, Encoded) else labels
    return decoded


def _label(job_id: str, project: str, key: str, value: str) -> dict[str, str]:
    return {"job_id": job_id, "project": project, "key": key, "value": value}


def put_labels(session: Session, job_id: str, project: str, labels: dict[str, str]) -> None:
    if labels:
        session.execute(_INSERT_LABELS, [_label(job_id, project, k, v) for k, v in labels.items()])


def replace_labels(session: Session, job_id: str, project: str, labels: dict[str, str]) -> None:
    session.execute(delete(LABELS).where(LABELS.c.job_id == job_id))
    put_labels(session, job_id, project, labels)


def put_metrics(session: Session, job_id: str, project: str, values: dict[str, float]) -> None:
    """Keep the last finite value of each key where it can be searched."""
    if not values:
        return
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    statement = dialect.insert(METRICS)
    upsert = statement.on_conflict_do_update(index_elements=["job_id", "key"], set_={"value": statement.excluded.value})
    session.execute(upsert, [{"job_id": job_id, "project": project, "key": k, "value": v} for k, v in values.items()])


def named(session: Session, project: str, unique_name: str) -> WholeJobRow | None:
    """The job that PUT by-name made under a name."""
    query = select(JOBS).where(JOBS.c.project == project, JOBS.c.unique_name == unique_name)
    return session.execute(query).one_or_none()


_QUEUED = select(func.count()).select_from(JOBS).where(JOBS.c.project == bindparam("project"), JOBS.c.state == "queued")


def queued_count(session: Session, project: str) -> int:
    return int(session.connection().scalar(_QUEUED, {"project": project}) or 0)


def pending(session: Session, now: datetime, limit: int) -> Sequence[PendingJob]:
    """Jobs that wait for devices and may be placed now, in the order of placement."""
    ready = JOBS.c.not_before.is_(None) | (JOBS.c.not_before <= now)
    query = select(JOBS.c.id, JOBS.c.project, JOBS.c.priority, JOBS.c.queued_at, JOBS.c.needs, JOBS.c.epoch)
    query = query.where(JOBS.c.state == "queued", ready).order_by(JOBS.c.priority.desc(), JOBS.c.queued_at, JOBS.c.id)
    return session.execute(query.limit(limit)).all()


def page(query: Select[Any], after: str | None, limit: int) -> Select[Any]:
    """Newest first, from after an id."""
    if after is not None:
        query = query.where(JOBS.c.id < after)
    return query.order_by(JOBS.c.id.desc()).limit(limit + 1)


def in_project(session: Session, project: str, ids: list[str]) -> list[str]:
    """Those of the ids that belong to a project, in their order."""
    mine = set(session.scalars(select(JOBS.c.id).where(JOBS.c.id.in_(ids), JOBS.c.project == project)))
    return [i for i in ids if i in mine]
