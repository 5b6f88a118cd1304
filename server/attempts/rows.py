"""A row of the attempts table as its readers see it: one node of one attempt."""

from datetime import datetime
from typing import Protocol

from stoker.document.strict_json import JsonValue


class AttemptRow(Protocol):
    """A Core row, or the object that a write has locked."""

    @property
    def id(self) -> str: ...

    @property
    def job_id(self) -> str: ...

    @property
    def number(self) -> int: ...

    @property
    def epoch(self) -> int: ...

    @property
    def node(self) -> int: ...

    @property
    def state(self) -> str: ...

    @property
    def worker_id(self) -> str: ...

    @property
    def worker_name(self) -> str: ...

    @property
    def devices(self) -> dict[str, JsonValue]: ...

    @property
    def placed_at(self) -> datetime: ...

    @property
    def claimed_at(self) -> datetime | None: ...

    @property
    def started_at(self) -> datetime | None: ...

    @property
    def ended_at(self) -> datetime | None: ...

    @property
    def exit_code(self) -> int | None: ...

    @property
    def reason(self) -> str | None: ...

    @property
    def message(self) -> str | None: ...

    @property
    def resumed_from(self) -> int | None: ...

    @property
    def remedy(self) -> dict[str, JsonValue] | None: ...
