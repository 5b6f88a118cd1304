"""Queries of data sets."""

from sqlalchemy import Select, func, select
from sqlmodel import Session, col

from server.datasets.tables import Dataset


def of_project(project: str) -> Select[Dataset]:
    return select(Dataset).where(col(Dataset.project) == project)


def one(session: Session, project: str, name: str, version: int | None) -> Dataset | None:
    """A version, or the newest."""
    named = of_project(project).where(col(Dataset.name) == name)
    if version is not None:
        return session.scalars(named.where(col(Dataset.version) == version)).one_or_none()
    return session.scalars(named.order_by(col(Dataset.version).desc()).limit(1)).one_or_none()


def newest_of_each(session: Session, project: str, after: str | None, limit: int) -> list[Dataset]:
    """The newest version of each name after a name, by name."""
    names = select(col(Dataset.name), func.max(col(Dataset.version)).label("version")).where(col(Dataset.project) == project)
    if after is not None:
        names = names.where(col(Dataset.name) > after)
    newest = names.group_by(col(Dataset.name)).order_by(col(Dataset.name)).limit(limit).subquery()
    joined = of_project(project).join(newest, (col(Dataset.name) == newest.c.name) & (col(Dataset.version) == newest.c.version))
    return list(session.scalars(joined.order_by(col(Dataset.name))))


def versions(session: Session, project: str, name: str, before: int | None, limit: int) -> list[Dataset]:
    """Versions of a name, newest first."""
    named = of_project(project).where(col(Dataset.name) == name)
    if before is not None:
        named = named.where(col(Dataset.version) < before)
    return list(session.scalars(named.order_by(col(Dataset.version).desc()).limit(limit)))


def with_digest(session: Session, project: str, name: str, digest: str) -> list[Dataset]:
    """Versions of a name that have these files, newest first."""
    named = of_project(project).where(col(Dataset.name) == name, col(Dataset.digest) == digest)
    return list(session.scalars(named.order_by(col(Dataset.version).desc())))
