"""A row of the jobs table as its readers see it: a Core row, or the object that a write has locked."""

from datetime import datetime
from typing import Protocol

from stoker.document.strict_json import JsonValue
from stoker.plan.needs import Needs


class PendingJob(Protocol):
    """What the placement of a waiting job reads."""

    @property
    def id(self) -> str: ...

    @property
    def project(self) -> str: ...

    @property
    def priority(self) -> int: ...

    @property
    def queued_at(self) -> datetime: ...

    @property
    def needs(self) -> Needs: ...

    @property
    def epoch(self) -> int: ...


class JobRow(PendingJob, Protocol):
    """A job without its documents."""

    @property
    def name(self) -> str | None: ...

    @property
    def kind(self) -> str: ...

    @property
    def state(self) -> str: ...

    @property
    def desired(self) -> str: ...

    @property
    def phase(self) -> str | None: ...

    @property
    def reason(self) -> str | None: ...

    @property
    def outcome(self) -> str | None: ...

    @property
    def message(self) -> str | None: ...

    @property
    def labels(self) -> dict[str, str]: ...

    @property
    def parent_id(self) -> str | None: ...

    @property
    def attempts(self) -> int: ...

    @property
    def start_epoch(self) -> int: ...

    @property
    def spec_digest(self) -> str: ...

    @property
    def gates(self) -> list[str]: ...

    @property
    def progress(self) -> dict[str, JsonValue]: ...

    @property
    def metrics(self) -> dict[str, JsonValue]: ...

    @property
    def objective(self) -> dict[str, JsonValue] | None: ...

    @property
    def last_event(self) -> int: ...

    @property
    def version(self) -> int: ...

    @property
    def created_at(self) -> datetime: ...

    @property
    def started_at(self) -> datetime | None: ...

    @property
    def finished_at(self) -> datetime | None: ...

    @property
    def archived_at(self) -> datetime | None: ...

    @property
    def not_before(self) -> datetime | None: ...


class WholeJobRow(JobRow, Protocol):
    """A job with its documents and its plan."""

    @property
    def submitted(self) -> str: ...

    @property
    def spec(self) -> str: ...

    @property
    def origins(self) -> dict[str, str]: ...

    @property
    def plan(self) -> dict[str, JsonValue]: ...
