"""Who asks: API keys `stk_<8>_<43>` and attempt tokens `sta_<26>_<43>`, both stored hashed and compared in constant time.

A key acts for one project or, with project null, for every project. An attempt token writes to its attempt and to blobs.
"""

import base64
import hashlib
import hmac
import re
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import select
from sqlmodel import Session

from server.attempts.tables import Attempt
from server.db import Database, utcnow
from server.errors import Refusal, problem
from server.rates import Rates
from server.tokens.tables import ApiKey

Scope = Literal["read", "submit", "admin", "worker"]
SCOPES: tuple[Scope, ...] = ("read", "submit", "admin", "worker")
_KEY = re.compile(r"stk_([a-z0-9]{8})_[A-Za-z0-9_-]{43}", re.ASCII)
_TOKEN = re.compile(r"sta_([a-z0-9]{26})_[A-Za-z0-9_-]{43}", re.ASCII)
_ALPHABET = "abcdefghjkmnpqrstvwxyz0123456789"
CACHE_SECONDS = 0.5
"""How long a key is believed without asking the database; a revocation is in force within a second."""
FAILURES_PER_MINUTE = 10
"""Wrong credentials of one prefix from one address; further ones get 429."""


@dataclass(frozen=True)
class Principal:
    """An API key in use."""

    id: str
    name: str
    project: str | None
    """Null: every project."""
    scopes: frozenset[str]
    expires_at: datetime | None = None

    def may(self, scope: str) -> bool:
        """`admin` includes read and submit, submit includes read; `worker` includes nothing."""
        implied: dict[str, tuple[str, ...]] = {"read": ("submit", "admin"), "submit": ("admin",)}
        return scope in self.scopes or any(s in self.scopes for s in implied.get(scope, ()))

    def sees(self, project: str) -> bool:
        return self.project is None or self.project == project


@dataclass(frozen=True)
class AttemptPrincipal:
    """An attempt token in use."""

    attempt_id: str
    job_id: str
    epoch: int


Credential = Principal | AttemptPrincipal


def key_of(pepper: bytes, key_id: str) -> tuple[str, str]:
    """The key with a random id, and the prefix it is looked up by.

    Both are 256-bit HMACs of the id, so that a repeated request for a new key can be answered again without keeping it.
    """
    mac = hmac.new(pepper, f"api-key:{key_id}".encode(), hashlib.sha256).digest()
    prefix = "".join(
        _ALPHABET[b & 31] for b in hmac.new(pepper, f"api-key-prefix:{key_id}".encode(), hashlib.sha256).digest()[:8]
    )
    return f"stk_{prefix}_{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}", prefix


def digest(pepper: bytes, secret: str) -> str:
    """HMAC-SHA-256, hex."""
    return hmac.digest(pepper, secret.encode(), "sha256").hex()


def attempt_token(pepper: bytes, attempt_id: str, agent_id: str) -> str:
    """The token of an attempt's agent, 256 bits made from the pepper so that a repeated claim gets the same one."""
    mac = hmac.new(pepper, f"attempt-token:{attempt_id}:{agent_id}".encode(), hashlib.sha256).digest()
    return f"sta_{attempt_id.removeprefix('att_')}_{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def unauthenticated() -> Refusal:
    return problem(
        401, "unauthenticated", "Send a valid key: `Authorization: Bearer stk_…`.", headers={"WWW-Authenticate": "Bearer"}
    )


class Authenticator:
    """Turns an Authorization header into a credential."""

    def __init__(self, db: Database, pepper: bytes, rates: Rates) -> None:
        self._db, self._pepper, self._rates = db, pepper, rates
        self._cache: dict[str, tuple[float, str, Credential]] = {}
        self._failures: dict[str, tuple[float, int]] = {}

    async def authenticate(self, header: str, address: str) -> Credential:
        """Raises 401 `unauthenticated`, or 429 `rate_limited` after too many wrong ones or too many requests.

        Workers and agents are never held back: a heartbeat that is refused costs a run.
        """
        scheme, _, secret = header.partition(" ")
        matched = _KEY.fullmatch(secret) or _TOKEN.fullmatch(secret)
        if scheme.lower() != "bearer" or matched is None:
            raise unauthenticated()
        lookup, given = secret[:3] + matched[1], digest(self._pepper, secret)
        self._refuse_guessing(bucket := f"{address} {lookup}")
        known = self._cache.get(lookup)
        if known is None or known[0] < time.monotonic():
            found = await self._db.read(lambda s: _look_up(s, secret[:3], matched[1]))
            known = (time.monotonic() + CACHE_SECONDS, *found) if found else None
            self._remember(lookup, known)
        if not hmac.compare_digest(given, known[1] if known else "0" * 64) or known is None:
            self._count_failure(bucket)
            raise unauthenticated()
        if isinstance(known[2], Principal) and known[2].expires_at is not None and known[2].expires_at <= utcnow():
            raise unauthenticated()
        if isinstance(known[2], Principal) and "worker" not in known[2].scopes:
            self._rates.take(known[2].id)
        return known[2]

    def _remember(self, lookup: str, known: tuple[float, str, Credential] | None) -> None:
        if len(self._cache) > 10_000:
            self._cache.clear()
        if known is None:
            self._cache.pop(lookup, None)
        else:
            self._cache[lookup] = known

    def _refuse_guessing(self, bucket: str) -> None:
        until, count = self._failures.get(bucket, (0.0, 0))
        if count >= FAILURES_PER_MINUTE and until > (now := time.monotonic()):
            raise problem(
                429, "rate_limited", "Too many wrong keys; wait.", headers={"Retry-After": str(max(1, round(until - now)))}
            )

    def _count_failure(self, bucket: str) -> None:
        if len(self._failures) > 10_000:
            self._failures.clear()
        until, count = self._failures.get(bucket, (0.0, 0))
        now = time.monotonic()
        self._failures[bucket] = (now + 60, 1) if until <= now else (until, count + 1)


def _look_up(session: Session, kind: str, lookup: str) -> tuple[str, Credential] | None:
    if kind == "sta":
        return _look_up_attempt(session, "att_" + lookup)
    table = ApiKey.metadata.tables["api_keys"]
    row = session.execute(select(table).where(table.c.prefix == lookup, table.c.revoked_at.is_(None))).one_or_none()
    if row is None:
        return None
    return row.digest, Principal(row.id, row.name, row.project, frozenset(row.scopes), row.expires_at)


def _look_up_attempt(session: Session, attempt_id: str) -> tuple[str, Credential] | None:
    """Tokens of ended attempts still authenticate: their writes are answered 409 `stale_attempt`, which the agent obeys."""
    table = Attempt.metadata.tables["attempts"]
    row = session.execute(select(table).where(table.c.id == attempt_id, table.c.token_hash.is_not(None))).one_or_none()
    return None if row is None else (row.token_hash, AttemptPrincipal(row.id, row.job_id, row.epoch))
