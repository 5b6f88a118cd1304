"""`Idempotency-Key`: a repeated POST gets the answer of the first, byte for byte, for 24 hours.

    return await once(request, db, scope, lambda session: Answer(202, body, headers))

The kept answer is written in the transaction of the work itself. Requests without the header just run. Refusals are not
kept: a request that was refused did nothing and may be tried again under its key. Work that is done for many requests at
once uses the parts: `claim_of`, `recall`, `replay` and `keep`.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Protocol

from sqlalchemy import and_, bindparam, delete, insert, select, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlmodel import Session
from starlette.requests import Request
from starlette.responses import Response

from server.db import Database, utcnow
from server.errors import Refusal, problem
from server.tokens.tables import IdempotentAnswer

KEPT = timedelta(hours=24)
_KEY = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
_TABLE = IdempotentAnswer.metadata.tables["idempotent_answers"]
_BY_KEYS = and_(_TABLE.c.project == bindparam("scope"), _TABLE.c.key.in_(bindparam("keys", expanding=True)))
_RECALL, _FORGET, _KEEP = select(_TABLE).where(_BY_KEYS), delete(_TABLE).where(_BY_KEYS), insert(_TABLE)
_LOCKED = ("55P03", "40P01")
"""PostgreSQL's codes for a lock that was not had in time, and for two that wait for each other."""


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


@dataclass(frozen=True)
class Claim:
    """A request's wish to be done once."""

    scope: str
    """Separates the keys of one tenant from another's."""
    key: str
    fingerprint: str
    """SHA-256 of method, path, query and body."""


@dataclass(frozen=True)
class Kept:
    """The answer that a key had, and the request it belongs to."""

    fingerprint: str
    answer: Answer


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
    claim = await claim_of(request, project)
    if claim is None:
        return _shown(await db.write(work), reveal).response()
    answer, replayed = await db.write(lambda s: _once(s, claim, work))
    return _shown(answer, reveal).response(replayed=replayed)


async def claim_of(request: Request, scope: str) -> Claim | None:
    """The claim that a request makes, if any. Raises 400 `idempotency_key_invalid`."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not valid(key) or len(request.headers.getlist("idempotency-key")) > 1:
        raise problem(400, "idempotency_key_invalid", "Idempotency-Key is 1 to 255 visible ASCII characters, once.")
    target = f"{request.url.path}?{request.url.query}"
    return Claim(scope, key, fingerprint(request.method, target, await request.body()))


def valid(key: str) -> bool:
    return _KEY.fullmatch(key) is not None


def fingerprint(method: str, target: str, body: bytes) -> str:
    hashed = hashlib.sha256(f"{method} {target}\n".encode())
    hashed.update(body)
    return hashed.hexdigest()


def _shown(answer: Answer, reveal: Callable[[bytes], bytes] | None) -> Answer:
    return answer if reveal is None else replace(answer, body=reveal(answer.body))


def _once(session: Session, claim: Claim, work: Callable[[Session], Answer]) -> tuple[Answer, bool]:
    if (kept := recall(session, [claim]).get((claim.scope, claim.key))) is not None:
        return replay(kept, claim), True
    answer = work(session)
    session.flush()
    keep(session, [(claim, answer)])
    return answer, False


def recall(session: Session, claims: Iterable[Claim]) -> dict[tuple[str, str], Kept]:
    """Answers that are kept under the claims' keys, by scope and key. Expired ones are removed, so that `keep` may follow."""
    oldest = utcnow() - KEPT
    scopes: dict[str, list[str]] = {}
    for claim in claims:
        scopes.setdefault(claim.scope, []).append(claim.key)
    kept: dict[tuple[str, str], Kept] = {}
    for scope, keys in scopes.items():
        rows = session.connection().execute(_RECALL, {"scope": scope, "keys": keys}).all()
        if expired := [row.key for row in rows if row.created_at <= oldest]:
            session.connection().execute(_FORGET, {"scope": scope, "keys": expired})
        kept |= {(scope, row.key): _kept(row) for row in rows if row.created_at > oldest}
    return kept


class _AnswerRow(Protocol):
    @property
    def request_digest(self) -> str: ...

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> dict[str, str]: ...

    @property
    def body(self) -> str: ...


def _kept(row: _AnswerRow) -> Kept:
    headers = dict(row.headers)
    media_type = headers.pop("content-type")
    return Kept(row.request_digest, Answer(row.status, row.body.encode(), headers, media_type))


def replay(kept: Kept, claim: Claim) -> Answer:
    """The kept answer for a request that makes the claim. Raises 422 `idempotency_key_reused` for another one."""
    if kept.fingerprint != claim.fingerprint:
        raise problem(422, "idempotency_key_reused", "This Idempotency-Key was used for another request.")
    return kept.answer


def keep(session: Session, answered: Sequence[tuple[Claim, Answer]]) -> None:
    """Write answers beside their work. Raises 409 `idempotency_in_progress`, which undoes the work, when another process
    has just answered or is answering under one of the keys.
    """
    if not answered:
        return
    now = utcnow()
    rows = [
        {
            "project": claim.scope,
            "key": claim.key,
            "request_digest": claim.fingerprint,
            "status": answer.status,
            "headers": {**answer.headers, "content-type": answer.media_type},
            "body": answer.body.decode(),
            "created_at": now,
        }
        for claim, answer in answered
    ]
    rows.sort(key=lambda row: (row["project"], row["key"]))  # two processes take their locks in the same order
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL lock_timeout = '2s'"))
    try:
        connection.execute(_KEEP, rows)
    except IntegrityError as error:
        raise _in_progress() from error
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) in _LOCKED:
            raise _in_progress() from error
        raise


def _in_progress() -> Refusal:
    detail = "Another request under this key was answered at this moment; ask again for its answer."
    return problem(409, "idempotency_in_progress", detail, headers={"Retry-After": "1"})


def expire(session: Session) -> None:
    """Forget answers older than 24 hours."""
    session.execute(delete(_TABLE).where(_TABLE.c.created_at <= utcnow() - KEPT))


__all__ = ["Answer", "Claim", "Kept", "claim_of", "expire", "fingerprint", "keep", "once", "recall", "replay", "valid"]
