"""A row of the workers table as its readers see it."""

from datetime import datetime
from typing import Protocol

from stoker.document.strict_json import JsonValue


class WorkerRow(Protocol):
    """A Core row, or the object that a write has locked."""

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def state(self) -> str: ...

    @property
    def boot_id(self) -> str: ...

    @property
    def address(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def capacity(self) -> dict[str, JsonValue]: ...

    @property
    def warm(self) -> bool: ...

    @property
    def load(self) -> dict[str, JsonValue]: ...

    @property
    def heartbeat_at(self) -> datetime: ...
