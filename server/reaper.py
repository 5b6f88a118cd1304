"""Housekeeping: expired leases, stops past their deadline, time limits, lost wake-ups, old answers, unnamed blobs.

Silence of an attempt means something only while the server itself could hear. After its own start, after an outage of the
database and after a pause of this process, no lease is reaped for one full lease. When the wall clock jumps, leases are
moved with it, so neither a step forward nor one back makes an attempt look dead or immortal.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, literal, select, update
from sqlmodel import Session

from server import idempotency
from server.attempts import store as attempts
from server.attempts.ending import cut_off
from server.attempts.members import PEER_LOST, ask_to_stop, live_members
from server.attempts.tables import Attempt
from server.blobs.service import housekeep
from server.blobs.store import BlobStore
from server.db import Database, utcnow
from server.events.service import append_event
from server.jobs import store as jobs
from server.jobs.tables import Job
from server.leader import Leader
from server.scheduler import Scheduler
from server.telemetry import Telemetry
from server.workers.store import WORKERS
from stoker.timers import TimerSettings

log = logging.getLogger(__name__)
_ATTEMPTS, _JOBS = attempts.ATTEMPTS, jobs.JOBS
Clock = Callable[[], float]


class Watchman:
    """Knows since when this process has been able to hear, and when the wall clock was moved."""

    def __init__(self, timers: TimerSettings, monotonic: Clock = time.monotonic, wall: Clock = time.time) -> None:
        self._timers, self._monotonic, self._wall = timers, monotonic, wall
        self._seen, self._offset = monotonic(), wall() - monotonic()
        self._amnesty_until = self._seen + timers.lease

    def deaf(self) -> None:
        """Something kept the server from hearing until now."""
        self._amnesty_until = self._monotonic() + self._timers.lease

    def look(self) -> float:
        """Call at every round. Returns by how many seconds the wall clock was moved since the last one, 0 when it was not."""
        now, offset = self._monotonic(), self._wall() - self._monotonic()
        if now - self._seen > 3 * self._timers.reap + self._timers.margin:
            self.deaf()
        self._seen = now
        jump = offset - self._offset
        if abs(jump) < max(self._timers.margin / 2, 0.05):
            return 0.0
        self._offset = offset
        self.deaf()
        return jump

    @property
    def may_reap(self) -> bool:
        return self._monotonic() >= self._amnesty_until


class Reaper:
    """Runs the rounds; in an installation of several processes, only in the leading one."""

    def __init__(
        self, db: Database, blobs: BlobStore, scheduler: Scheduler, leader: Leader, timers: TimerSettings, telemetry: Telemetry
    ) -> None:
        self._db, self._blobs, self._scheduler, self._leader = db, blobs, scheduler, leader
        self._timers, self._telemetry, self._watchman = timers, telemetry, Watchman(timers)
        self._swept = self._kept_house = 0.0

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._timers.reap)
            try:
                await self._round()
            except Exception:
                self._watchman.deaf()
                log.exception("a round of the reaper failed")

    async def _round(self) -> None:
        jump = self._watchman.look()
        if not await asyncio.to_thread(self._leader.leads):
            self._watchman.deaf()  # another process reaps; should it die, this one has heard nothing so far
            return
        if jump:
            log.warning("the wall clock moved by %.1f s; leases move with it", jump)
            await self._db.write(lambda s: shift(s, timedelta(seconds=jump)))
        found = await self._db.read(lambda s: overdue(s, utcnow(), leases=self._watchman.may_reap, timers=self._timers))
        for attempt_id, job_id in found:
            ended = await self._db.write(
                lambda s, a=attempt_id, j=job_id: reap(s, a, j, self._timers, leases=self._watchman.may_reap)  # type: ignore[misc]
            )
            self._telemetry.reaped.inc(bool(ended))
        await self._chores()

    async def _chores(self) -> None:
        now = time.monotonic()
        if now - self._swept >= self._timers.sweep:
            self._swept = now
            await self._db.write(self._scheduler.sweep)
        if now - self._kept_house >= 3 * self._timers.sweep:
            self._kept_house = now
            await self._db.write(idempotency.expire)
            await asyncio.to_thread(housekeep, self._db, self._blobs)


def shift(session: Session, by: timedelta) -> None:
    """Move every live time by which the wall clock was moved."""
    micros = by // timedelta(microseconds=1)
    live = _ATTEMPTS.c.state != "ended"
    for column in (_ATTEMPTS.c.lease_expires_at, _ATTEMPTS.c.stop_deadline):
        session.execute(update(_ATTEMPTS).where(live, column.is_not(None)).values({column: column + _micros(micros)}))
    for column in (_JOBS.c.not_before, _JOBS.c.stop_deadline):
        session.execute(update(_JOBS).where(column.is_not(None)).values({column: column + _micros(micros)}))
    session.execute(update(WORKERS).values(heartbeat_at=WORKERS.c.heartbeat_at + _micros(micros)))


def _micros(count: int) -> Any:
    return literal(count, BigInteger)


def overdue(session: Session, now: datetime, *, leases: bool, timers: TimerSettings) -> list[tuple[str, str]]:
    """Live attempts that something is due for: (attempt, job)."""
    live = select(_ATTEMPTS.c.id, _ATTEMPTS.c.job_id).join(_JOBS, _JOBS.c.id == _ATTEMPTS.c.job_id)
    live = live.where(_ATTEMPTS.c.state.in_(("placed", "claimed", "running")))
    late = (_JOBS.c.stop_deadline <= now) | (_ATTEMPTS.c.stop_deadline <= now)
    if leases:
        late = late | (_ATTEMPTS.c.lease_expires_at <= now)
    found = [(r.id, r.job_id) for r in session.execute(live.where(late).limit(1000))]
    limited = live.add_columns(_ATTEMPTS.c.started_at, _JOBS.c.needs).where(
        _ATTEMPTS.c.started_at.is_not(None), _ATTEMPTS.c.stop_reason.is_(None)
    )
    for row in session.execute(limited):
        limit = row.needs.time_limit_seconds
        if limit is not None and row.started_at + timedelta(seconds=limit) <= now:
            found.append((row.id, row.job_id))
    return found


def reap(session: Session, attempt_id: str, job_id: str, timers: TimerSettings, *, leases: bool) -> bool:
    """Do what is due for one attempt, looking again under the locks. Returns whether it was ended."""
    now = utcnow()
    job, attempt = jobs.lock(session, job_id), attempts.lock(session, attempt_id)
    if job is None or attempt is None or attempt.state == "ended" or attempt.epoch != job.epoch:
        return False
    if leases and attempt.lease_expires_at <= now:
        cut_off(session, job, attempt, _silent(job), "The worker was silent for longer than the lease.")
        return True
    if job.state == "cancelling" and _past(job.stop_deadline, now):
        cut_off(session, job, attempt, "cancelled_by_user", "It did not stop in time and was cut off.")
        return True
    if job.state == "pausing" and _past(job.stop_deadline, now - timedelta(seconds=timers.lease)):
        cut_off(
            session,
            job,
            attempt,
            "paused_by_user",
            "It did not stop in time and was cut off; it continues from its last checkpoint.",
        )
        return True
    if _past(attempt.stop_deadline, now):
        cut_off(session, job, attempt, attempt.stop_reason or PEER_LOST, "It did not stop in time and was cut off.")
        return True
    _limit(session, job, attempt, timers, now)
    return False


def _silent(job: Job) -> str:
    return "cancelled_by_user" if job.state == "cancelling" else "node_lost"


def _past(deadline: datetime | None, now: datetime) -> bool:
    return deadline is not None and deadline <= now


def _limit(session: Session, job: Job, attempt: Attempt, timers: TimerSettings, now: datetime) -> None:
    """Ask an attempt that has run too long to stop at a checkpoint."""
    limit = job.needs.time_limit_seconds
    if limit is None or attempt.started_at is None or attempt.stop_reason is not None:
        return
    if attempt.started_at + timedelta(seconds=limit) > now:
        return
    together = live_members(session, job) if attempt.nodes > 1 else [attempt]
    ask_to_stop(together, "time_limit", timers.stop_grace + timers.margin)
    message = f"It has run for {limit:.0f} s, which is resources.time_limit_seconds; it stops at a checkpoint."
    append_event(session, job, "notice", {"level": "warning", "code": "time_limit", "message": message})
