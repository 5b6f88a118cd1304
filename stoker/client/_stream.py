"""Server-sent events without IO: bytes to events, and a cursor that lets each event through once, in order."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from pydantic import ValidationError

from stoker.views import EventView

READ_TIMEOUT = 40.0
"""Seconds without even a heartbeat (15 s) after which a stream is dead."""


@dataclass(frozen=True)
class Message:
    """One dispatched event of the event-stream format (WHATWG HTML, 9.2)."""

    event: str
    data: str
    id: str | None


class Decoder:
    """Feed bytes as they come, in any portions."""

    def __init__(self) -> None:
        self._rest = b""
        self._event = ""
        self._data: list[str] = []
        self._id: str | None = None

    def feed(self, chunk: bytes) -> Iterator[Message]:
        """The events that this chunk completes. One that was cut off is never dispatched."""
        *lines, self._rest = (self._rest + chunk).replace(b"\r\n", b"\n").split(b"\n")
        for line in lines:
            if line:
                self._field(line.decode("utf-8", errors="replace"))
            elif (message := self._dispatch()) is not None:
                yield message

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id":
            self._id = value

    def _dispatch(self) -> Message | None:
        message = Message(self._event or "message", "\n".join(self._data), self._id) if self._data else None
        self._event, self._data, self._id = "", [], None
        return message


@dataclass
class Cursor:
    """How far a watcher is. `after` is the sequence number of the last event it was given."""

    after: int = 0
    headers: dict[str, str] = field(default_factory=lambda: {"Accept": "text/event-stream", "Cache-Control": "no-store"})

    def request_headers(self) -> dict[str, str]:
        return {**self.headers, "Last-Event-ID": str(self.after)}

    def accept(self, message: Message) -> EventView | None:
        """The event when it is new. Anything unreadable is skipped, as a newer server may say more."""
        try:
            event = EventView.model_validate(json.loads(message.data))
        except (ValueError, ValidationError):
            return None
        if event.seq <= self.after:
            return None
        self.after = event.seq
        return event
