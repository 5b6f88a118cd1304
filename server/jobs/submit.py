"""The single path by which a job comes to be: prepared document → row, first event, kept answer, wake-up.

All submits that wait at one moment are written together, each table with one statement.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import orjson
from sqlmodel import Session

from server import idempotency
from server.db import Encoded, new_id, to_json, utcnow
from server.errors import Refusal, problem
from server.events import store as events
from server.hub import work_appeared
from server.idempotency import Answer, Claim, Kept
from server.jobs import store
from server.jobs.prepared import Prepared
from server.jobs.views import links
from server.references.reference import Found
from server.settings import Settings


class Moved(Exception):
    """What a document refers to is another thing now than when the document was prepared: its data set has a newer version."""


class QueueLimit:
    """Refuses jobs of a project that has too many waiting: the bound protects the server, it is no quota.

    They are counted in the database at most once a second. For one thread, the writer's.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._counted: dict[str, tuple[float, int]] = {}

    def admit(self, session: Session, project: str) -> None:
        """Raises 429 `queue_full`."""
        at, count = self._counted.get(project, (-math.inf, 0))
        if time.monotonic() - at > 1:
            at, count = time.monotonic(), store.queued_count(session, project)
        if len(self._counted) > _PROJECTS:
            self._counted.clear()
        self._counted[project] = (at, count + 1)
        if count >= self._settings.max_queued_jobs:
            raise problem(429, "queue_full", "The project has too many waiting jobs.", headers={"Retry-After": "60"})


_PROJECTS = 10_000
"""Projects whose counts are remembered."""


@dataclass(frozen=True)
class Submission:
    """A job that is asked for."""

    prepared: Prepared
    gates: tuple[str, ...]
    claim: Claim | None
    remembered: bool
    """Prepared for an earlier request: whether what it refers to has moved is still to be seen."""
    limit: QueueLimit


Stored = tuple[dict[str, Any], tuple[Found, ...]]
"""A new job's row, and what its document refers to."""
Outcome = tuple[Answer, bool] | Refusal | Moved
"""The answer, and whether it is a replay."""


def submit_all(session: Session, asked: Sequence[Submission]) -> list[Outcome]:
    """Store what is asked for, all or nothing but for those that are refused one by one; for `Database.write_together`."""
    kept = idempotency.recall(session, [each.claim for each in asked if each.claim is not None])
    moved = {found for each in asked if each.remembered for found in each.prepared.found}
    moved = {found for found in moved if found.moved(session)}
    stored: list[Stored] = []
    answered: list[tuple[Claim, Answer]] = []
    outcomes = [_outcome(session, each, kept, moved, stored, answered) for each in asked]
    _store(session, stored)
    idempotency.keep(session, answered)
    return outcomes


def _outcome(
    session: Session,
    asked: Submission,
    kept: dict[tuple[str, str], Kept],
    moved: set[Found],
    stored: list[Stored],
    answered: list[tuple[Claim, Answer]],
) -> Outcome:
    """What becomes of one; adds to what is stored, and to the kept answers for those that come after it under the same key."""
    claim = asked.claim
    try:
        if claim is not None and (known := kept.get((claim.scope, claim.key))) is not None:
            return idempotency.replay(known, claim), True
        if asked.remembered and not moved.isdisjoint(asked.prepared.found):
            return Moved()
        for found in asked.prepared.found:
            found.confirm(session)
        row = _row(session, asked.prepared, asked.gates, asked.limit)
    except Refusal as refusal:
        return refusal
    stored.append((row, asked.prepared.found))
    answer = _created(asked.prepared, row)
    if claim is not None:
        kept[claim.scope, claim.key] = Kept(claim.fingerprint, answer)
        answered.append((claim, answer))
    return answer, False


def insert(
    session: Session, limit: QueueLimit, prepared: Prepared, *, gates: Sequence[str] = (), unique_name: str | None = None
) -> SimpleNamespace:
    """Store one job with its first event; after the commit the scheduler looks. Returns its row.

    Raises 429 `queue_full` when the project has as many waiting jobs as it may.
    """
    row = _row(session, prepared, gates, limit) | {"unique_name": unique_name}
    for found in prepared.found:
        found.confirm(session)
    _store(session, [(row, prepared.found)])
    return SimpleNamespace(**row | prepared.columns | {"gates": list(gates), "metrics": {}})


def _row(session: Session, prepared: Prepared, gates: Sequence[str], limit: QueueLimit) -> dict[str, Any]:
    limit.admit(session, prepared.columns["project"])
    now = utcnow()
    fresh: dict[str, Any] = {"id": new_id("job"), "created_at": now, "queued_at": now}
    if gates:
        fresh["gates"] = Encoded(to_json(list(gates)))
    return prepared.row | fresh


def _store(session: Session, stored: Sequence[Stored]) -> None:
    if not stored:
        return
    rows = [row for row, _ in stored]
    store.add(session, rows)
    for row, found in stored:
        for each in found:
            each.hold(session, row["id"], row["project"])
    session.flush()
    events.add_all(session, [_first_event(row["id"], row["created_at"]) for row in rows])
    work_appeared(session)


def _first_event(job_id: str, now: datetime) -> dict[str, Any]:
    return {"job_id": job_id, "seq": 1, "epoch": 0, "type": "state", "data": _QUEUED, "created_at": now}


_QUEUED = Encoded(to_json({"to": "queued"}))


def _created(prepared: Prepared, row: dict[str, Any]) -> Answer:
    """The answer that `whole_view` of the row would give."""
    job_id, now = row["id"], row["created_at"]
    view = {**prepared.view, "id": job_id, "created_at": now, "queued_at": now, "links": links(job_id)}
    body = orjson.dumps(view, option=orjson.OPT_UTC_Z)
    return Answer(202, body, {"Location": f"/v1/jobs/{job_id}", "ETag": f'"{row["version"]}"'})
