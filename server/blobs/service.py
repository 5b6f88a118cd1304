"""Which project has which blobs, what keeps them, and when they go.

A blob is visible to the projects that uploaded its bytes. It lives while a manifest names it (`refer`), and a day longer.
Collecting is safe against uploads without a lock: the collector dooms a row in one statement that checks its age and its
references, then removes the bytes, then the row. Whoever wants to keep a blob first moves its time (`UPDATE … WHERE not
doomed`), which the database serialises with the dooming; an upload of a doomed digest is told to come back.
"""

import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from sqlalchemy import delete, exists, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col

from server.blobs.store import BlobStore
from server.blobs.tables import Blob, BlobGrant, BlobRef, BlobUsage
from server.db import Database, Row, utcnow
from stoker.timers import timers_from_environment

_BATCH = 500
"""Digests per statement; SQLite allows 32,766 parameters."""


class MissingBlob(LookupError):
    """A manifest names bytes that this project has not uploaded whole."""

    def __init__(self, sha256: str) -> None:
        self.sha256 = sha256
        super().__init__(sha256)


class BeingCollected(Exception):
    """The digest is being removed this moment; the same upload succeeds a moment later."""


class OverQuota(Exception):
    """The project's blobs would pass its quota."""


def find(session: Session, project: str, sha256: str) -> Blob | None:
    """The blob, when it is stored whole and the project has it."""
    granted = exists().where(col(BlobGrant.sha256) == sha256, col(BlobGrant.project) == project)
    return session.scalars(select(Blob).where(col(Blob.sha256) == sha256, col(Blob.doomed_at).is_(None), granted)).one_or_none()


def touch(session: Session, project: str, shas: Sequence[str]) -> set[str]:
    """Keep blobs for another day; returns those that the project has whole."""
    found: set[str] = set()
    for batch in _batches(shas):
        mine = select(col(BlobGrant.sha256)).where(col(BlobGrant.project) == project, col(BlobGrant.sha256).in_(batch))
        alive = col(Blob.sha256).in_(mine) & col(Blob.doomed_at).is_(None)
        found.update(session.scalars(update(Blob).where(alive).values(created_at=utcnow()).returning(col(Blob.sha256))))
    return found


def admit(session: Session, project: str, sha256: str, *, quota: int, more: int) -> int:
    """Bytes that an upload of `more` bytes may have before the quota ends it. Raises BeingCollected or OverQuota."""
    doomed = session.scalar(select(col(Blob.doomed_at)).where(col(Blob.sha256) == sha256))
    if doomed is not None:
        raise BeingCollected(sha256)
    left = quota - used_bytes(session, project)
    if more > left:
        raise OverQuota(project)
    return left


def used_bytes(session: Session, project: str) -> int:
    """Bytes of all blobs a project has."""
    return session.scalar(select(col(BlobUsage.bytes)).where(col(BlobUsage.project) == project)) or 0


def stored(session: Session, project: str, sha256: str, size: int, *, quota: int) -> None:
    """Record bytes that are durable in the store. Raises BeingCollected or OverQuota."""
    _insert_new(session, Blob, sha256=sha256, bytes=size, created_at=utcnow())
    if not _touch_one(session, sha256):
        raise BeingCollected(sha256)
    if _insert_new(session, BlobGrant, sha256=sha256, project=project):
        _insert_new(session, BlobUsage, project=project, bytes=0)
        mine = update(BlobUsage).where(col(BlobUsage.project) == project)
        used = session.scalar(mine.values(bytes=col(BlobUsage.bytes) + size).returning(col(BlobUsage.bytes)))
        if used is None or used > quota:
            raise OverQuota(project)


def _touch_one(session: Session, sha256: str) -> bool:
    alive = (col(Blob.sha256) == sha256) & col(Blob.doomed_at).is_(None)
    return session.scalar(update(Blob).where(alive).values(created_at=utcnow()).returning(col(Blob.sha256))) is not None


def _insert_new(session: Session, table: type[Row], **values: Any) -> bool:
    """Insert unless its key is there, also when another process inserts it this moment; whether it was new."""
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table).values(**values).on_conflict_do_nothing()
    return session.execute(statement.returning(*table.__table__.primary_key.columns)).first() is not None  # type: ignore[attr-defined]


def refer(session: Session, project: str, owner: str, files: Iterable[tuple[str, int]]) -> None:
    """Let a manifest of (digest, bytes) keep its blobs. Raises MissingBlob for the first that is not there as described."""
    wanted = dict(files)
    have = touch(session, project, list(wanted))
    sizes: dict[str, int] = {}
    for batch in _batches(sorted(have)):
        sizes.update((row.sha256, row.bytes) for row in session.scalars(select(Blob).where(col(Blob.sha256).in_(batch))))
    for sha256, size in wanted.items():
        if sizes.get(sha256) != size:
            raise MissingBlob(sha256)
    if wanted:
        session.execute(insert(BlobRef), [{"sha256": sha256, "owner": owner} for sha256 in wanted])


def release(session: Session, owner: str) -> None:
    """A manifest is gone or expired: it keeps nothing any more."""
    session.execute(delete(BlobRef).where(col(BlobRef.owner) == owner))


def housekeep(db: Database, store: BlobStore) -> int:
    """Remove blobs that nothing named for a day and uploads that nobody continued; returns how many blobs went.

    Blocking: call it from a thread other than the database's writer. Safe at any time, and after any crash of itself.
    """
    after = timers_from_environment().collect
    store.partials.sweep(after)
    _doom_strays(db, store, after)
    removed = 0
    while doomed := db.write_now(lambda session: _doom(session, after)):
        for sha256 in doomed:
            store.backend.remove(sha256)
        db.write_now(partial(_forget, shas=doomed))
        removed += len(doomed)
    return removed


def _doom_strays(db: Database, store: BlobStore, after: float) -> None:
    """Give old bytes without a row (a crash came between the two) a doomed one; one shard of 256 at a time."""
    before = time.time() - after
    strays = [sha256 for sha256, stored_at in store.backend.listing(store.next_shard()) if stored_at < before]
    for batch in _batches(strays):
        known = db.read_now(partial(_known, shas=batch))
        if lost := [sha256 for sha256 in batch if sha256 not in known]:
            db.write_now(partial(_insert_doomed, shas=lost))


def _known(session: Session, shas: Sequence[str]) -> set[str]:
    return set(session.scalars(select(col(Blob.sha256)).where(col(Blob.sha256).in_(shas))))


def _insert_doomed(session: Session, shas: Sequence[str]) -> None:
    for sha256 in shas:
        _insert_new(session, Blob, sha256=sha256, bytes=0, created_at=utcnow(), doomed_at=utcnow())


def _doom(session: Session, after: float) -> list[str]:
    """Digests to remove now: those found doomed by a collector that died, and the old ones that nothing names."""
    left = list(session.scalars(select(col(Blob.sha256)).where(col(Blob.doomed_at).is_not(None)).limit(_BATCH)))
    if left:
        return left
    before = utcnow() - timedelta(seconds=after)
    named = exists().where(col(BlobRef.sha256) == col(Blob.sha256))
    old = (col(Blob.created_at) < before) & col(Blob.doomed_at).is_(None) & ~named
    batch = select(col(Blob.sha256)).where(old).order_by(col(Blob.created_at)).limit(_BATCH).scalar_subquery()
    doom: Any = update(Blob).where(col(Blob.sha256).in_(batch), old).values(doomed_at=utcnow()).returning(col(Blob.sha256))
    return list(session.scalars(doom.execution_options(synchronize_session=False)))


def _forget(session: Session, shas: Sequence[str]) -> None:
    mine = select(col(BlobGrant.project), func.sum(Blob.bytes)).join(Blob, col(Blob.sha256) == col(BlobGrant.sha256))
    doomed = mine.where(col(Blob.sha256).in_(shas), col(Blob.doomed_at).is_not(None)).group_by(col(BlobGrant.project))
    for project, size in session.execute(doomed).all():
        session.execute(update(BlobUsage).where(col(BlobUsage.project) == project).values(bytes=col(BlobUsage.bytes) - int(size)))
    session.execute(delete(BlobGrant).where(col(BlobGrant.sha256).in_(shas)))
    session.execute(delete(Blob).where(col(Blob.sha256).in_(shas), col(Blob.doomed_at).is_not(None)))


def _batches(shas: Sequence[str]) -> Iterable[Sequence[str]]:
    return (shas[at : at + _BATCH] for at in range(0, len(shas), _BATCH))
