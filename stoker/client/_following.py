"""Following a job's events without IO: what to ask for, what is new, and how long to pause after a cut."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from stoker.client import _calls
from stoker.client._retry import Retries
from stoker.client._stream import Cursor, Decoder
from stoker.client._waiting import PATIENCE
from stoker.client._wire import Call
from stoker.errors import ApiError, QuotaExceeded, ServerFault, StokerError
from stoker.views import EventView, JobView


class Follower:
    """One watcher over any number of connections."""

    def __init__(self, job_id: str, after: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.cursor, self._job_id, self._clock = Cursor(after), job_id, clock
        self._decoder, self._last = Decoder(), ""
        self._heard, self._cuts, self._retries = clock(), 0, Retries(first=0.1, longest=5.0)

    @property
    def ended(self) -> bool:
        """Whether the newest event was an `end`."""
        return self._last == "end"

    def is_over(self, job: JobView) -> bool:
        """Whether the job's log has nothing after the `end` that was seen."""
        self._heard = self._clock()
        if job.last_event > self.cursor.after:
            self._last = ""
        return self.ended

    def call(self) -> Call[Any]:
        """The request of the next connection: it continues after the last event that was given out."""
        self._decoder = Decoder()
        page = _calls.events(self._job_id)
        return Call(page.method, page.path, page.parse, headers=self.cursor.request_headers())

    def feed(self, chunk: bytes) -> Iterator[EventView]:
        """New events in these bytes."""
        self._heard = self._clock()
        for message in self._decoder.feed(chunk):
            if (event := self.cursor.accept(message)) is not None:
                self._cuts, self._last = 0, event.type
                yield event

    def failed(self, error: StokerError) -> None:
        """Raises the error when asking again cannot help."""
        final = isinstance(error, ApiError) and not isinstance(error, (ServerFault, QuotaExceeded))
        if final or self._clock() - self._heard > PATIENCE:
            raise error

    def pause(self) -> float:
        """Seconds until the next connection; short after one that brought something, none after an `end`."""
        if self.ended:
            return 0.0
        self._cuts += 1
        return self._retries.pause(self._cuts)
