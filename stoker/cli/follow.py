"""Following jobs to their ends: drawn in place on a terminal, one line per change elsewhere. The job says how it ended."""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from stoker.cli.failure import Failure
from stoker.cli.live import LiveView
from stoker.cli.outcome import label
from stoker.cli.terminal import Progress, is_live, say
from stoker.client import Client
from stoker.errors import WaitTimeout
from stoker.status import is_terminal
from stoker.views import EventView, JobView

TICK = 0.25
"""Seconds between two looks at the clock and the keyboard."""


class Detached(Failure):
    """Ctrl-C while waiting: the jobs go on without us."""

    def __init__(self, jobs: Sequence[JobView]) -> None:
        names, first = ", ".join(label(job) for job in jobs), jobs[0].id
        remedy = f"stoker watch {first}   (or: stoker cancel {first})"
        super().__init__(f"detached; {names} keep{'s' if len(jobs) == 1 else ''} running", remedy, code=130)


def follow(client: Client, job: JobView, progress: Progress = "auto", timeout: float | None = None) -> JobView:
    """The job once it has ended.

    Raises WaitTimeout when the time is over and Detached on Ctrl-C; either way the job keeps running.
    """
    return follow_all(client, [job], progress, timeout)[0]


def follow_all(
    client: Client, jobs: Sequence[JobView], progress: Progress = "auto", timeout: float | None = None
) -> list[JobView]:
    """The jobs once all have ended; see `follow`."""
    until = None if timeout is None else time.monotonic() + timeout
    try:
        if progress != "none":
            with _view(client, jobs, progress) as view:
                _until_end(client, jobs, view, until)
        return [client.wait(job.id, timeout=_left(until)) for job in jobs]
    except KeyboardInterrupt:
        raise Detached(jobs) from None


def events_of(client: Client, job: JobView, after: int = 0, timeout: float | None = None) -> Iterator[EventView]:
    """A job's events after number `after` until its end. Raises as `follow` does."""
    events, until = _Events(client, [job], after), None if timeout is None else time.monotonic() + timeout
    try:
        while not events.over:
            if (found := events.next(TICK)) is not None:
                yield found[1]
            _check_time(client, [job], until)
    except KeyboardInterrupt:
        raise Detached([job]) from None


class PlainView:
    """One line per change of state, and warnings."""

    def event(self, job_id: str, event: EventView) -> None:
        for line in _lines(event):
            say(f"{_clock(event.created_at)} {job_id} {line}")

    def tick(self) -> None:
        """Nothing moves between events."""


def _lines(event: EventView) -> Iterator[str]:
    data = event.data
    if event.type == "state":
        reason = data.get("reason")
        yield f"{data.get('to', '?')}{f' ({reason})' if reason else ''}"
    elif event.type == "notice" and data.get("level") in ("warning", "error"):
        yield f"{data['level']}: {data.get('message', '')}"


def _clock(when: datetime) -> str:
    return when.astimezone().strftime("%H:%M:%S")


@contextmanager
def _view(client: Client, jobs: Sequence[JobView], mode: Progress) -> Iterator[LiveView | PlainView]:
    if not is_live(mode):
        yield PlainView()
        return
    with LiveView(client, jobs) as view:
        yield view


def _until_end(client: Client, jobs: Sequence[JobView], view: LiveView | PlainView, until: float | None) -> None:
    events = _Events(client, jobs)
    while not events.over:
        if (found := events.next(TICK)) is not None:
            view.event(*found)
        view.tick()
        _check_time(client, jobs, until)


def _check_time(client: Client, jobs: Sequence[JobView], until: float | None) -> None:
    """Raises WaitTimeout when the time is over and a job still runs."""
    if until is None or time.monotonic() < until:
        return
    running = [job for job in map(client.job, (job.id for job in jobs)) if not is_terminal(job.state)]
    if running:
        raise WaitTimeout(f"{label(running[0])} is still {running[0].state}\n  help: stoker watch {running[0].id}")


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - time.monotonic())


class _Events:
    """Events of several jobs, read in a thread so that the main one can draw, count time and hear Ctrl-C."""

    def __init__(self, client: Client, jobs: Sequence[JobView], after: int = 0) -> None:
        self._queue: queue.Queue[tuple[str, EventView] | Exception | None] = queue.Queue()
        self._open = len(jobs)
        for job in jobs:
            threading.Thread(target=self._read, args=(client, job.id, after), daemon=True, name=f"events-{job.id}").start()

    @property
    def over(self) -> bool:
        return self._open == 0

    def _read(self, client: Client, job_id: str, after: int) -> None:
        try:
            for event in client.watch(job_id, after=after):
                self._queue.put((job_id, event))
            self._queue.put(None)
        except Exception as error:  # whatever it is, the main thread must hear of it rather than wait for ever
            self._queue.put(error)

    def next(self, timeout: float) -> tuple[str, EventView] | None:
        """The next event, or None after `timeout` seconds or at an end. Raises what ended the reading."""
        try:
            found = self._queue.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(found, Exception):
            raise found
        if found is None:
            self._open -= 1
        return found
