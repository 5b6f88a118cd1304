"""`Idempotency-Key`: a repeated POST gets the answer of the first, byte for byte, for 24 hours.

    return await once(request, db, scope, lambda session: Answer(202, body, headers))

The kept answer is written in the transaction of the work itself. Requests without the header just run. Refusals are not
kept: a request that was refused did nothing and may be tried again under its key.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

from sqlalchemy import delete, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError
from sqlmodel import Session
from starlette.requests import Request
from starlette.responses import Response

from server.db import Database, utcnow
from server.errors import Refusal, problem
from server.tokens.tables import IdempotentAnswer

KEPT = timedelta(hours=24)
_KEY = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
_TABLE = IdempotentAnswer.metadata.tables["idempotent_answers"]


@dataclass(frozen=True)
class Answer:
    """What a POST answers: the part that a replay repeats."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    media_type: str = "application/json"

    def response(self, *, replayed: bool = False) -> Response:
        headers = {**self.headers, "Idempotency-Replayed": "true"} if replayed else self.headers
        return Response(self.body, self.status, headers, self.media_type)


async def once(
    request: Request,
    db: Database,
    project: str,
    work: Callable[[Session], Answer],
    *,
    reveal: Callable[[bytes], bytes] | None = None,
) -> Response:
    """Run the work in one durable write, or replay its first answer.

    `reveal` puts a secret into the body on its way out; what is kept has none. `project` separates the keys of one tenant from another's. Raises 400 `idempotency_key_invalid`, 422
    `idempotency_key_reused` for another request under the same key, 409 `idempotency_in_progress` while another server
    process still works on the first.
    """
    key = request.headers.get("idempotency-key")
    if key is None:
        return _shown(await db.write(work), reveal).response()
    if not _KEY.fullmatch(key) or len(request.headers.getlist("idempotency-key")) > 1:
        raise problem(400, "idempotency_key_invalid", "Idempotency-Key is 1 to 255 visible ASCII characters, once.")
    fingerprint = await _fingerprint(request)
    answer, replayed = await db.write(lambda s: _once(s, project, key, fingerprint, work))
    return _shown(answer, reveal).response(replayed=replayed)


def _shown(answer: Answer, reveal: Callable[[bytes], bytes] | None) -> Answer:
    return answer if reveal is None else replace(answer, body=reveal(answer.body))


async def _fingerprint(request: Request) -> str:
    hashed = hashlib.sha256(f"{request.method} {request.url.path}?{request.url.query}\n".encode())
    hashed.update(await request.body())
    return hashed.hexdigest()


def _once(session: Session, project: str, key: str, fingerprint: str, work: Callable[[Session], Answer]) -> tuple[Answer, bool]:
    if (kept := _kept(session, project, key)) is not None:
        return _replay(kept, fingerprint), True
    answer = work(session)
    _keep(session, project, key, fingerprint, answer)
    return answer, False


def _kept(session: Session, project: str, key: str) -> IdempotentAnswer | None:
    row = session.execute(
        select(_TABLE).where(_TABLE.c.project == project, _TABLE.c.key == key, _TABLE.c.created_at > utcnow() - KEPT)
    ).one_or_none()
    return None if row is None else IdempotentAnswer(**row._mapping)


def _replay(kept: IdempotentAnswer, fingerprint: str) -> Answer:
    if kept.request_digest != fingerprint:
        raise problem(422, "idempotency_key_reused", "This Idempotency-Key was used for another request.")
    headers = dict(kept.headers)
    return Answer(kept.status, kept.body.encode(), headers, headers.pop("content-type"))


def _keep(session: Session, project: str, key: str, fingerprint: str, answer: Answer) -> None:
    """Write the answer beside the work. Another process that is just answering under this key makes this one undo its work."""
    row = {
        "project": project,
        "key": key,
        "request_digest": fingerprint,
        "status": answer.status,
        "headers": {**answer.headers, "content-type": answer.media_type},
        "body": answer.body.decode(),
        "created_at": utcnow(),
    }
    on_postgres = session.get_bind().dialect.name == "postgresql"
    insert = (postgresql if on_postgres else sqlite).insert(_TABLE).values(row)
    fresh = insert.on_conflict_do_update(
        index_elements=["project", "key"], set_=row, where=_TABLE.c.created_at <= utcnow() - KEPT
    ).returning(_TABLE.c.key)
    if on_postgres:
        session.execute(text("SET LOCAL lock_timeout = '2s'"))
    try:
        kept = session.execute(fresh).first()
    except OperationalError as error:
        raise _in_progress() from error
    if kept is None:
        raise _in_progress()


def _in_progress() -> Refusal:
    detail = "Another request under this key was answered at this moment; ask again for its answer."
    return problem(409, "idempotency_in_progress", detail, headers={"Retry-After": "1"})


def expire(session: Session) -> None:
    """Forget answers older than 24 hours."""
    session.execute(delete(_TABLE).where(_TABLE.c.created_at <= utcnow() - KEPT))


__all__ = ["Answer", "expire", "once"]
