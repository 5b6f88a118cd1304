"""A job's output while it is written: server-sent events, or plain text that goes on."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

import orjson
from sqlalchemy import select
from sqlmodel import Session

from server.deps import Runtime
from server.errors import problem
from server.jobs.store import JOBS
from server.logs import service, store
from server.logs.rows import LogRow
from server.logs.store import Filter, Place
from stoker.status import TERMINAL

HEARTBEAT = 15.0
SPACING = 0.25
"""Seconds between two batches: at most four updates a second."""


@contextmanager
def counted(runtime: Runtime, key_id: str) -> Iterator[None]:
    """One of the streams that a key may have open."""
    runtime.streams[key_id] = runtime.streams.get(key_id, 0) + 1
    try:
        yield
    finally:
        runtime.streams[key_id] -= 1
        if not runtime.streams[key_id]:
            del runtime.streams[key_id]


def refuse_too_many(runtime: Runtime, key_id: str) -> None:
    """Raises 429 `too_many_streams`."""
    if runtime.streams.get(key_id, 0) >= runtime.settings.max_streams_per_key:
        raise problem(429, "too_many_streams", "This key has too many open streams.", headers={"Retry-After": "5"})


async def events(runtime: Runtime, key_id: str, wanted: Filter, known: Place) -> AsyncIterator[bytes]:
    """`id: epoch-seq`, `event: log`, a LogChunkView; at last `event: end` with the job's state."""
    yield b"retry: 1000\n\n"
    async for rows, state, attempts in _batches(runtime, key_id, wanted, known):
        if rows is None:
            yield b"event: end\ndata: %b\n\n" % orjson.dumps({"state": state}) if state else b": alive\n\n"
            continue
        for row, view in zip(rows, service.views(rows, attempts), strict=True):
            yield b"id: %d-%d\nevent: log\ndata: %b\n\n" % (row.epoch, row.seq, orjson.dumps(view.model_dump()))


async def text(runtime: Runtime, key_id: str, wanted: Filter, known: Place, reader: service.Reader) -> AsyncIterator[bytes]:
    """Lines as they are completed, until the job has ended."""
    async for rows, state, _ in _batches(runtime, key_id, wanted, known):
        lines = list(reader.feed(rows)) if rows is not None else list(reader.flush()) if state else []
        if lines:
            yield "".join(line + "\n" for line in lines).encode()


Batch = tuple[Sequence[LogRow] | None, str | None, dict[int, int]]


async def _batches(runtime: Runtime, key_id: str, wanted: Filter, known: Place) -> AsyncIterator[Batch]:
    """(chunks, None, attempts); after a silence (None, None, {}); at the end of the job (None, state, {})."""
    poll, spoken = min(1.0, runtime.settings.timers.report), time.monotonic()
    with counted(runtime, key_id), runtime.hub.watch(wanted.job_id) as watch:
        while not runtime.hub.closing.is_set():
            state, rows, attempts = await runtime.db.read(lambda s, k=known: _read(s, wanted, k))  # type: ignore[misc]
            if rows:
                yield rows, None, attempts
                known, spoken = (rows[-1].epoch, rows[-1].seq), time.monotonic()
            if len(rows) == service.BATCH:
                continue
            if state in TERMINAL:
                yield None, state, {}
                return
            await asyncio.sleep(SPACING if rows else 0)
            await watch.wait(poll)
            if time.monotonic() - spoken >= HEARTBEAT:
                yield None, None, {}
                spoken = time.monotonic()


def _read(session: Session, wanted: Filter, known: Place) -> tuple[str, Sequence[LogRow], dict[int, int]]:
    """The state is read before the chunks: when it is terminal, no chunk comes after those."""
    state = session.scalar(select(JOBS.c.state).where(JOBS.c.id == wanted.job_id))
    rows = store.after(session, wanted, known, service.BATCH)
    return state or "cancelled", rows, service.numbers(session, wanted.job_id) if rows else {}
