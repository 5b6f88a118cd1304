"""A job's events as server-sent events (WHATWG HTML, section 9.2): each once, in order, resumable, with a final `end`.

Readers are served from the table, never from memory, so a slow one holds nothing but its place. A change made by another
process is seen by polling.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

import orjson
from sqlalchemy import select
from sqlmodel import Session

from server.deps import Runtime
from server.errors import problem
from server.events import store
from server.events.rows import EventRow
from server.jobs.store import JOBS
from stoker.status import TERMINAL

HEARTBEAT = 15.0
"""Seconds of silence after which a comment is sent, so that proxies and clients know the stream lives."""
SPACING = 0.25
"""Seconds between two batches: at most four updates a second."""
BATCH = 200


def follow(runtime: Runtime, key_id: str, job_id: str, known: int) -> AsyncIterator[bytes]:
    """The stream from after an event number to the end of the job.

    Raises 429 `too_many_streams` at once, before the answer begins.
    """
    if runtime.streams.get(key_id, 0) >= runtime.settings.max_streams_per_key:
        raise problem(429, "too_many_streams", "This key has too many open streams.", headers={"Retry-After": "5"})
    return _stream(runtime, key_id, job_id, known)


async def _stream(runtime: Runtime, key_id: str, job_id: str, known: int) -> AsyncIterator[bytes]:
    poll = min(1.0, runtime.settings.timers.report)
    spoken = time.monotonic()
    with _counted(runtime, key_id), runtime.hub.watch(job_id) as watch:
        yield b"retry: 1000\n\n"
        while not runtime.hub.closing.is_set():
            state, last, rows = await runtime.db.read(lambda s, k=known: _read(s, job_id, k))  # type: ignore[misc]
            if rows:
                yield b"".join(_message(r) for r in rows)
                known, spoken = rows[-1].seq, time.monotonic()
            if state in TERMINAL and known >= last:
                return
            if len(rows) == BATCH:
                continue
            await asyncio.sleep(SPACING if rows else 0)
            await watch.wait(poll)
            if time.monotonic() - spoken >= HEARTBEAT:
                yield b": alive\n\n"
                spoken = time.monotonic()


@contextmanager
def _counted(runtime: Runtime, key_id: str) -> Iterator[None]:
    runtime.streams[key_id] = runtime.streams.get(key_id, 0) + 1
    try:
        yield
    finally:
        runtime.streams[key_id] -= 1
        if not runtime.streams[key_id]:
            del runtime.streams[key_id]


def _read(session: Session, job_id: str, known: int) -> tuple[str, int, Sequence[EventRow]]:
    job = session.execute(select(JOBS.c.state, JOBS.c.last_event).where(JOBS.c.id == job_id)).one_or_none()
    if job is None:
        return "cancelled", 0, []
    return job.state, job.last_event, store.after(session, job_id, known, BATCH)


def _message(row: EventRow) -> bytes:
    data = orjson.dumps(
        {"seq": row.seq, "type": row.type, "created_at": row.created_at, "epoch": row.epoch, "data": row.data},
        option=orjson.OPT_UTC_Z,
    )
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (row.seq, row.type.encode(), data)
