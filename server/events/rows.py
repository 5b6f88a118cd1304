"""A row of the events table as its readers see it."""

from datetime import datetime
from typing import Protocol

from stoker.document.strict_json import JsonValue


class EventRow(Protocol):
    """A Core row."""

    @property
    def seq(self) -> int: ...

    @property
    def epoch(self) -> int: ...

    @property
    def type(self) -> str: ...

    @property
    def data(self) -> dict[str, JsonValue]: ...

    @property
    def created_at(self) -> datetime: ...
