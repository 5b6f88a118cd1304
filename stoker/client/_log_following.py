"""Following a job's output without IO: each chunk once, over any number of connections."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from stoker.client import _calls
from stoker.client._retry import Retries
from stoker.client._stream import Decoder
from stoker.client._waiting import PATIENCE
from stoker.client._wire import Call, params
from stoker.errors import ApiError, QuotaExceeded, ServerFault, StokerError
from stoker.views import LogChunkView


class LogFollower:
    """One reader; `ended` once the server said that the job has ended and everything was sent."""

    def __init__(self, job_id: str, rank: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._job_id, self._rank, self._clock = job_id, rank, clock
        self._decoder, self._place, self.ended = Decoder(), "", False
        self._heard, self._cuts, self._retries = clock(), 0, Retries(first=0.1, longest=5.0)

    def call(self) -> Call[Any]:
        """The request of the next connection: it continues after the last chunk."""
        self._decoder = Decoder()
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": self._place} if self._place else {})
        return Call("GET", _calls.logs(self._job_id).path, lambda _: None, params(rank=self._rank), headers)

    def feed(self, data: bytes) -> Iterator[LogChunkView]:
        """Chunks in these bytes."""
        self._heard = self._clock()
        for message in self._decoder.feed(data):
            self._cuts = 0
            if message.event == "end":
                self.ended = True
            elif message.id is not None and message.id != self._place:
                self._place = message.id
                try:
                    yield LogChunkView.model_validate(json.loads(message.data))
                except (ValueError, ValidationError):
                    continue  # a newer server may say more

    def failed(self, error: StokerError) -> None:
        """Raises the error when asking again cannot help."""
        final = isinstance(error, ApiError) and not isinstance(error, (ServerFault, QuotaExceeded))
        if final or self._clock() - self._heard > PATIENCE:
            raise error

    def pause(self) -> float:
        """Seconds until the next connection."""
        self._cuts += 1
        return self._retries.pause(self._cuts)
