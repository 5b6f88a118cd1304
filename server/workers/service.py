"""Heartbeats of workers, whose answers name attempts to launch and to kill, and draining."""

from collections.abc import Sequence
from datetime import timedelta

from sqlmodel import Session

from server.attempts import store as attempts
from server.attempts.ending import cut_off
from server.attempts.members import ask_to_stop, live_members
from server.attempts.rows import AttemptRow
from server.db import new_id, utcnow
from server.errors import not_found
from server.events.service import append_event
from server.hub import work_appeared
from server.jobs import store as jobs
from server.workers import store
from server.workers.rows import WorkerRow
from server.workers.tables import Worker
from stoker.protocol import Assignment, Heartbeat, HeartbeatReply
from stoker.timers import TimerSettings
from stoker.views import WorkerView


def heartbeat(session: Session, beat: Heartbeat, timers: TimerSettings) -> HeartbeatReply:
    """Record a worker and settle what became of its attempts.

    A new boot id means that the machine restarted: all that ran there is dead, and its jobs are queued at once. The same holds for
    an attempt whose agent is reported dead. Agents that are alive renew their own leases.
    """
    worker, rebooted = _record(session, beat)
    held = {h.attempt_id: h for h in beat.held}
    if rebooted:
        for row in attempts.live(session, worker.id):
            if row.id not in held or not held[row.id].alive:
                _lose(session, row.id, row.job_id, "node_lost", "The machine restarted.")
    known = attempts.by_ids(session, held)
    stale: list[Assignment] = []
    for given in beat.held:
        found = known.get(given.attempt_id)
        mine = found is not None and found.worker_id == worker.id and found.epoch == given.epoch and found.state != "ended"
        if found is None or not mine:
            stale.append(Assignment(attempt_id=given.attempt_id, epoch=given.epoch))
        elif not given.alive:
            _lose(session, found.id, found.job_id, "agent_lost", "The agent died.")
    waiting = [r for r in attempts.live(session, worker.id) if r.state == "placed" and r.id not in held]
    return HeartbeatReply(
        worker_id=worker.id,
        state="draining" if worker.state == "draining" else "active",
        interval_seconds=timers.heartbeat,
        assigned=tuple(Assignment(attempt_id=r.id, epoch=r.epoch) for r in waiting),
        stale=tuple(stale),
    )


def _record(session: Session, beat: Heartbeat) -> tuple[Worker, bool]:
    worker = store.lock_named(session, beat.name)
    now, capacity = utcnow(), beat.capacity.model_dump(mode="json")
    if worker is None:
        worker = Worker(
            id=new_id("wrk"),
            name=beat.name,
            boot_id=beat.boot_id,
            address=beat.address,
            version=beat.version,
            capacity=capacity,
            heartbeat_at=now,
            created_at=now,
        )
        session.add(worker)
        rebooted = False
    else:
        rebooted = worker.boot_id != beat.boot_id
    grown = rebooted or worker.capacity != capacity or worker.warm != beat.warm or worker.heartbeat_at <= now
    worker.boot_id, worker.version, worker.capacity = beat.boot_id, beat.version, capacity
    worker.address = beat.address
    worker.warm, worker.load, worker.heartbeat_at = beat.warm, dict(beat.load), max(now, worker.heartbeat_at)
    session.flush()
    if grown:
        work_appeared(session)
    return worker, rebooted


def _lose(session: Session, attempt_id: str, job_id: str, code: str, message: str) -> None:
    job = jobs.lock(session, job_id)
    attempt = attempts.lock(session, attempt_id)
    if job is not None and attempt is not None and attempt.state != "ended" and attempt.epoch == job.epoch:
        cut_off(session, job, attempt, code, message)


def drain(session: Session, worker_id: str, timers: TimerSettings) -> Worker:
    """Place nothing more on the worker and ask its attempts to stop at a checkpoint; their jobs continue elsewhere."""
    worker = _known(session, worker_id)
    if worker.state == "draining":
        return worker
    worker.state = "draining"
    session.flush()
    for row in attempts.live(session, worker.id):
        job = jobs.lock(session, row.job_id)
        attempt = attempts.lock(session, row.id)
        if job is None or attempt is None or attempt.state == "ended":
            continue
        if attempt.state == "placed":
            cut_off(session, job, attempt, "drained", "The worker is being drained.")
        elif attempt.stop_reason is None:
            together = live_members(session, job) if attempt.nodes > 1 else [attempt]
            ask_to_stop(together, "drained", timers.stop_grace + timers.margin + timers.lease)
            data = {"level": "info", "code": "draining", "message": "The worker is being drained; the run stops at a checkpoint."}
            append_event(session, job, "notice", data)
    return worker


def resume(session: Session, worker_id: str) -> Worker:
    """Place jobs on the worker again."""
    worker = _known(session, worker_id)
    worker.state = "active"
    session.flush()
    work_appeared(session)
    return worker


def _known(session: Session, worker_id: str) -> Worker:
    worker = store.lock(session, worker_id) or store.lock_named(session, worker_id)
    if worker is None:
        raise not_found()
    return worker


def views(session: Session, timers: TimerSettings) -> list[WorkerView]:
    """Every worker with what its attempts hold. A worker that was silent for a lease is lost."""
    held: dict[str, list[AttemptRow]] = {}
    for attempt in attempts.live(session):
        held.setdefault(attempt.worker_id, []).append(attempt)
    return [view(w, held.get(w.id, []), timers) for w in store.everyone(session)]


def view(worker: WorkerRow, held: Sequence[AttemptRow], timers: TimerSettings) -> WorkerView:
    lost = worker.heartbeat_at < utcnow() - timedelta(seconds=timers.lease)
    return WorkerView(
        id=worker.id,
        name=worker.name,
        state="lost" if lost else worker.state,
        version=worker.version,
        address=worker.address,
        capacity=worker.capacity,
        held={
            "cpus": sum(a.devices["cpus"] for a in held),
            "memory_bytes": sum(a.devices["memory_bytes"] for a in held),
            "gpus": sorted(g for a in held for g in a.devices["gpus"]),
            "tpus": sum(a.devices.get("tpus", 0) for a in held),
        },
        jobs=[a.job_id for a in held],
        heartbeat_at=worker.heartbeat_at,
        warm=worker.warm,
        load=worker.load,
    )
