"""Follows the journal of one rank: whole lines become events, the rest waits."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from stoker.events import EVENT, Artifact, Finished, Metrics, Notice, Phase, Progress, Saved, Started

JournalEvent = Started | Phase | Metrics | Progress | Saved | Notice | Artifact | Finished
LONGEST_LINE = 4 << 20
_READ = 1 << 20


class JournalTail:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""
        self._skipping = False
        self.damaged = 0
        """Lines that were not an event."""

    def read(self) -> Iterator[JournalEvent]:
        """Events written since the last call. A line without its newline is not one yet."""
        while piece := self._piece():
            self._offset += len(piece)
            *lines, self._rest = (self._rest + piece).split(b"\n")
            for line in lines:
                yield from self._event(line)
            if len(self._rest) > LONGEST_LINE:
                self._rest, self._skipping = b"", True

    def _piece(self) -> bytes:
        try:
            with self._path.open("rb") as source:
                source.seek(self._offset)
                return source.read(_READ)
        except FileNotFoundError:
            return b""

    def _event(self, line: bytes) -> Iterator[JournalEvent]:
        if self._skipping:
            self._skipping = False
            self.damaged += 1
            return
        try:
            yield EVENT.validate_json(line)
        except ValidationError:
            self.damaged += 1
