"""Keys: made, listed, revoked."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import insert, select, update
from sqlmodel import Session

from server.auth import SCOPES, Principal, digest, key_of
from server.db import new_id, utcnow
from server.errors import not_found, problem
from server.tokens.rows import KeyRow
from server.tokens.tables import ApiKey
from stoker.views import KeyView

KEYS = ApiKey.metadata.tables["api_keys"]


def create(
    session: Session, pepper: bytes, *, name: str, scopes: Sequence[str], project: str | None, expires_at: datetime | None
) -> KeyView:
    """Make a key; the answer is the only place where it is ever shown. Raises ValueError for an unknown scope."""
    unknown = set(scopes) - set(SCOPES)
    if unknown or not scopes:
        raise ValueError(f"scopes are {', '.join(SCOPES)}")
    key_id = new_id("key")
    key, prefix = key_of(pepper, key_id)
    row = {
        "id": key_id,
        "prefix": prefix,
        "digest": digest(pepper, key),
        "name": name,
        "project": project,
        "scopes": sorted(set(scopes), key=SCOPES.index),
        "created_at": utcnow(),
        "expires_at": expires_at,
    }
    session.execute(insert(KEYS).values(row))
    return KeyView(**{k: v for k, v in row.items() if k != "digest"}, revoked_at=None, key=key)


def expiry(days: int | None, standard: int) -> datetime:
    return utcnow() + timedelta(days=standard if days is None else days)


def visible(session: Session, who: Principal, after: str | None, limit: int) -> Sequence[KeyRow]:
    """Keys that an administrator may see, oldest first."""
    query = select(KEYS).order_by(KEYS.c.id).limit(limit + 1)
    if who.project is not None:
        query = query.where(KEYS.c.project == who.project)
    if after is not None:
        query = query.where(KEYS.c.id > after)
    return session.execute(query).all()


def revoke(session: Session, who: Principal, key_id: str) -> KeyView:
    """End a key, by id or prefix. Repeating it changes nothing. Raises 404, or 409 `own_key` for the key that asks."""
    row = session.execute(select(KEYS).where((KEYS.c.id == key_id) | (KEYS.c.prefix == key_id))).one_or_none()
    if row is None or (who.project is not None and row.project != who.project):
        raise not_found()
    if row.id == who.id:
        raise problem(409, "own_key", "A key cannot revoke itself; use another one.")
    if row.revoked_at is None:
        session.execute(update(KEYS).where(KEYS.c.id == row.id).values(revoked_at=utcnow()))
    return view(session.execute(select(KEYS).where(KEYS.c.id == row.id)).one())


def view(row: KeyRow) -> KeyView:
    return KeyView(
        id=row.id,
        prefix=row.prefix,
        name=row.name,
        project=row.project,
        scopes=row.scopes,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
