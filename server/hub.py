"""Who waits for what in this process: changes of jobs, work for the scheduler. Losing a signal costs a poll, never an answer."""

import asyncio
import threading
from collections import defaultdict
from contextlib import suppress

from sqlmodel import Session

from server.db import after_commit


class Hub:
    """Signals from committing threads to coroutines of the event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.work = asyncio.Event()
        """Set when something may be placed."""
        self.closing = asyncio.Event()
        """Set when the server stops: streams end without an `end` event and are resumed elsewhere."""

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def close(self) -> None:
        self.closing.set()
        with self._lock:
            events = [e for group in self._waiting.values() for e in group]
        for event in events:
            event.set()

    def changed(self, job_id: str) -> None:
        """Wake whoever watches the job. Any thread."""
        with self._lock:
            events = list(self._waiting.get(job_id, ()))
        for event in events:
            self._call(event)

    def wake(self) -> None:
        """Wake the scheduler. Any thread."""
        self._call(self.work)

    def _call(self, event: asyncio.Event) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has closed: nobody waits any more
                self._loop.call_soon_threadsafe(event.set)

    def watch(self, job_id: str) -> "Watch":
        return Watch(self, job_id)


class Watch:
    """`with hub.watch(id) as watch: … await watch.wait(seconds)`; no change between two waits is missed."""

    def __init__(self, hub: Hub, job_id: str) -> None:
        self._hub, self._job_id, self._event = hub, job_id, asyncio.Event()

    def __enter__(self) -> "Watch":
        with self._hub._lock:
            self._hub._waiting[self._job_id].add(self._event)
        return self

    def __exit__(self, *_: object) -> None:
        with self._hub._lock:
            group = self._hub._waiting[self._job_id]
            group.discard(self._event)
            if not group:
                del self._hub._waiting[self._job_id]

    async def wait(self, seconds: float) -> None:
        """Return at the next change, or after the time: another process may have made it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        self._event.clear()


def hub_of(session: Session) -> Hub | None:
    """The hub of the server that opened the session; None in scripts."""
    hub = session.info.get("hub")
    return hub if isinstance(hub, Hub) else None


def job_changed(session: Session, job_id: str) -> None:
    """After the commit, wake watchers of the job."""
    if (hub := hub_of(session)) is not None:
        after_commit(session, lambda: hub.changed(job_id))


def work_appeared(session: Session) -> None:
    """After the commit, wake the scheduler."""
    if (hub := hub_of(session)) is not None:
        after_commit(session, hub.wake)
