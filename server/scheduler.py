"""The tick that turns `placement.place` into attempts, and `why` a job waits."""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Any

from sqlalchemy import insert, text, update
from sqlmodel import Session

from server.attempts import store as attempts
from server.db import Database, after_commit, new_id, utcnow
from server.errors import Refusal
from server.events.service import append_event, transition
from server.hub import Hub
from server.jobs import store as jobs
from server.jobs.rows import JobRow, PendingJob
from server.jobs.sentences import stands
from server.placement import Need, Node, Placement, could_ever, in_order, missing, place, reachable
from server.queue import Hint, Hints
from server.telemetry import Telemetry
from server.workers import store as workers
from server.workers.rows import WorkerRow
from stoker.timers import TimerSettings
from stoker.views import WhyView

log = logging.getLogger(__name__)
_LOOK = 1000
"""Waiting jobs that one tick considers."""
_LOCK = 7_310_001
"""PostgreSQL advisory lock under which one tick runs at a time."""
_SHORTEST_PAUSE, _LONGEST_PAUSE, _REST = 0.01, 0.25, 4
"""Seconds between two ticks, at least and at most, and the pause as a multiple of the last tick: many submits share one tick, and a
long queue that cannot be placed takes a fifth of a core."""
PATIENCE_SWEEPS = 3
"""Sweeps that a job waits before a worker is kept free for it: a minute with the published timers."""
FRESH_BEATS = 3
"""Heartbeats a worker may have missed and still be given work."""


class Scheduler:
    """Places waiting jobs whenever something changed, and at every sweep in case a signal was lost."""

    def __init__(self, db: Database, hub: Hub, hints: Hints, timers: TimerSettings, telemetry: Telemetry) -> None:
        self._db, self._hub, self._hints, self._timers, self._telemetry = db, hub, hints, timers, telemetry
        self._pause = _SHORTEST_PAUSE
        """Seconds between the last tick and the next."""

    async def run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(self._timers.sweep, max(self._timers.backoff, 0.05))):
                    await self._hub.work.wait()
            self._hub.work.clear()
            try:
                while await self._db.write(self.tick) == _LOOK:
                    pass
                await asyncio.sleep(self._pause)
            except Exception:
                log.exception("scheduler tick failed")
                await asyncio.sleep(min(1.0, self._timers.reap))

    def tick(self, session: Session) -> int:
        """Place what fits, in one transaction; returns how many attempts were made."""
        began = time.perf_counter()
        try:
            return self._tick(session)
        finally:
            self._pause = min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, _REST * (time.perf_counter() - began)))

    def _tick(self, session: Session) -> int:
        if not self._alone(session):
            return 0
        now = utcnow()
        nodes = nodes_of(session, now, self._timers)
        waiting = jobs.pending(session, now, _LOOK) if any(n.free_cpus > 0 for n in nodes) else []
        if not waiting:
            return 0
        made = place([need_of(r, now) for r in waiting], nodes, patience=PATIENCE_SWEEPS * self._timers.sweep)
        for placement in made:
            self._apply(session, placement, now)
        after_commit(session, lambda: self._telemetry.ticks.inc(len(made)))
        return len(made)

    def _alone(self, session: Session) -> bool:
        if self._db.is_sqlite:
            return True
        return bool(session.scalar(text("SELECT pg_try_advisory_xact_lock(:n)").bindparams(n=_LOCK)))

    def _apply(self, session: Session, placement: Placement, now: datetime) -> None:
        """Raise the epoch and store an attempt that holds the devices of every node; each node's wake-up is sent after the commit."""
        job = jobs.lock(session, placement.job_id)
        if job is None or job.state != "queued":
            return
        epoch, number = job.epoch + 1, job.attempts + 1
        try:
            transition(session, job, "starting", epoch=epoch, attempts=number, phase="starting", not_before=None)
        except Refusal:
            return
        rows = [self._row(job.id, number, epoch, i, placement, now) for i in range(len(placement.parts))]
        session.execute(insert(attempts.ATTEMPTS), rows)
        append_event(session, job, "attempt", {"id": rows[0]["id"], "number": number, "state": "placed", **_where(placement)})
        for row in rows:
            hint = Hint(row["worker_name"], row["id"], epoch)
            after_commit(session, lambda h=hint: self._hints.send(h))  # type: ignore[misc]

    def _row(self, job_id: str, number: int, epoch: int, node: int, placement: Placement, now: datetime) -> dict[str, Any]:
        part = placement.parts[node]
        return {
            "id": new_id("att"),
            "job_id": job_id,
            "number": number,
            "epoch": epoch,
            "node": node,
            "nodes": len(placement.parts),
            "state": "placed",
            "worker_id": part.worker_id,
            "worker_name": part.worker_name,
            "devices": part.devices(),
            "lease_expires_at": now + timedelta(seconds=self._timers.lease),
            "acked_through": 0,
            "placed_at": now,
            "hinted_at": now,
        }

    def sweep(self, session: Session) -> int:
        """Send the wake-ups of unclaimed attempts again; returns how many."""
        late = attempts.unclaimed(session, utcnow() - timedelta(seconds=self._timers.sweep))
        if late:
            ids = [r.id for r in late]
            session.execute(update(attempts.ATTEMPTS).where(attempts.ATTEMPTS.c.id.in_(ids)).values(hinted_at=utcnow()))
        for row in late:
            hint = Hint(row.worker_name, row.id, row.epoch)
            after_commit(session, lambda h=hint: self._hints.send(h))  # type: ignore[misc]
        return len(late)


def _where(placement: Placement) -> dict[str, Any]:
    """Workers and devices of the attempt, for its event."""
    first, *others = ({"worker": part.worker_name, "devices": part.devices()} for part in placement.parts)
    return {**first, "nodes": [first, *others]} if others else first


def need_of(row: PendingJob, now: datetime) -> Need:
    """What a waiting job asks of each node, and how many nodes."""
    needs = row.needs
    return Need(
        job_id=row.id,
        device=needs.device,
        ranks=needs.ranks // needs.nodes,
        cpus=needs.cpus // needs.nodes,
        memory_bytes=-(-needs.memory_bytes // needs.nodes),
        priority=row.priority,
        age=(now - row.queued_at).total_seconds(),
        nodes=needs.nodes,
        fewest=needs.min_nodes or needs.nodes,
        spread=needs.placement == "spread",
        backends=frozenset(needs.backends),
    )


def nodes_of(session: Session, now: datetime, timers: TimerSettings, *, every: bool = False) -> list[Node]:
    """Workers that may be given work, with what live attempts leave of them; `every`: lost and draining ones too."""
    fresh = now - timedelta(seconds=FRESH_BEATS * timers.heartbeat)
    rows = [w for w in workers.everyone(session) if every or (w.state == "active" and w.heartbeat_at > fresh)]
    if not rows:
        return []
    held: dict[str, list[dict[str, Any]]] = {}
    for attempt in attempts.live(session):
        held.setdefault(attempt.worker_id, []).append(attempt.devices)
    return [_node(w, held.get(w.id, [])) for w in rows]


def _node(worker: WorkerRow, held: Sequence[dict[str, Any]]) -> Node:
    capacity = worker.capacity
    gpus = tuple(g["index"] for g in capacity.get("gpus", ()))
    used = {g for h in held for g in h["gpus"]}
    return Node(
        id=worker.id,
        name=worker.name,
        cpus=capacity["cpus"],
        memory_bytes=capacity["memory_bytes"],
        gpus=gpus,
        free_cpus=capacity["cpus"] - sum(h["cpus"] for h in held),
        free_memory_bytes=capacity["memory_bytes"] - sum(h["memory_bytes"] for h in held),
        free_gpus=tuple(g for g in gpus if g not in used),
        warm=worker.warm,
        network=network_of(worker.address, worker.boot_id),
        tpus=capacity.get("tpus", 0),
        free_tpus=capacity.get("tpus", 0) - sum(h.get("tpus", 0) for h in held),
        backends=frozenset(capacity.get("backends", ())),
    )


def network_of(address: str, boot_id: str) -> str:
    """The network of a worker: its machine alone when its address is a loopback address, else the common one."""
    if not address:
        return ""
    try:
        local = ip_address(address).is_loopback
    except ValueError:
        local = address == "localhost"
    return f"machine {boot_id}" if local else "network"


def why(session: Session, row: JobRow, timers: TimerSettings) -> WhyView:
    """Why a job is in its state; for a queued one, the jobs ahead of it and what each worker lacks."""
    now = utcnow()
    if row.state != "queued":
        return WhyView(
            state=row.state, message=f"{stands(row.state)}.", position=None, ahead=[], needs=row.needs.document(), workers=[]
        )
    ordered = in_order([need_of(r, now) for r in jobs.pending(session, now, _LOOK)])
    ahead = [n.job_id for n in ordered]
    position = ahead.index(row.id) if row.id in ahead else None
    need = need_of(row, now)
    given = {n.id for n in nodes_of(session, now, timers)}
    nodes = nodes_of(session, now, timers, every=True)
    seen = [_lacks(need, n, n.id in given) for n in nodes]
    return WhyView(
        state="queued",
        message=_message(row, now, need, [n for n in nodes if n.id in given], nodes),
        position=None if position is None else position + 1,
        ahead=ahead[:position][:10] if position else [],
        needs=row.needs.document(),
        workers=seen,
    )


def _lacks(need: Need, node: Node, available: bool) -> dict[str, Any]:
    device = "cpu" if need.device == "auto" else need.device
    free = {"cpus": node.free_cpus, "memory_bytes": node.free_memory_bytes, "gpus": len(node.free_gpus)}
    if node.tpus:
        free["tpus"] = node.free_tpus
    return {"name": node.name, "available": available, "free": free, "missing": missing(need, node, device)}


def _message(row: JobRow, now: datetime, need: Need, given: Sequence[Node], nodes: Sequence[Node]) -> str:
    if row.not_before is not None and row.not_before > now:
        return f"The last attempt failed; the next one may start in {(row.not_before - now).total_seconds():.0f} s."
    if nodes and (unable := _no_image(need, nodes)):
        return unable
    if need.nodes > 1 and nodes:
        return _message_of_several(need, given, nodes)
    if not nodes:
        return "No worker has reported yet; start one with `stoker worker`."
    if not any(could_ever(need, n) for n in nodes):
        return f"No known worker is large enough for {_share(need)}; add a larger one or ask for less."
    if not any(could_ever(need, n) for n in given):
        return "Every worker that is large enough is lost or draining."
    return "Every worker that is large enough is busy or reserved for a job that is ahead."


def _no_image(need: Need, nodes: Sequence[Node]) -> str:
    """What the image of no known worker provides; empty when one does."""
    if need.device == "tpu" and not any(n.tpus for n in nodes):
        return "The job needs a TPU, and no known worker has one; start a worker from the image worker-tpu."
    if not any(need.backends <= n.backends for n in nodes):
        missing = ", ".join(sorted(need.backends))
        return f"The job needs {missing}, and no known worker has it; start a worker from the image worker-{missing}."
    return ""


def _message_of_several(need: Need, given: Sequence[Node], nodes: Sequence[Node]) -> str:
    wanted = f"{need.nodes} nodes" if need.fewest == need.nodes else f"at least {need.fewest} of {need.nodes} nodes"
    able = sum(could_ever(need, n) for n in nodes)
    if able < need.fewest:
        large = f"{able} {'worker is' if able == 1 else 'workers are'} large enough"
        return f"The job needs {wanted} with {_share(need)} each; {large}. Add workers or lower distributed.nodes."
    if (together := reachable(need, nodes)) < need.fewest:
        can = f"at most {together} can. Set STOKER_WORKER_ADDRESS on each worker"
        return f"The job needs {wanted} that can reach each other; {can}."
    if (together := reachable(need, given)) < need.fewest:
        return f"The job needs {wanted}; {together} in service are large enough, the others are lost or draining."
    return f"The job needs {wanted} at once; too many of them are busy or reserved for a job that is ahead."


def _share(need: Need) -> str:
    """What one node must have."""
    ranks = "1 rank" if need.ranks == 1 else f"{need.ranks} ranks"
    slots = "1 CPU slot" if need.cpus == 1 else f"{need.cpus} CPU slots"
    return f"{ranks}, {slots} and {need.memory_bytes / 2**30:.2f} GiB of memory"
