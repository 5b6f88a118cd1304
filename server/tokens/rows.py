"""A row of the api_keys table as its readers see it."""

from datetime import datetime
from typing import Protocol


class KeyRow(Protocol):
    """A Core row."""

    @property
    def id(self) -> str: ...

    @property
    def prefix(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def project(self) -> str | None: ...

    @property
    def scopes(self) -> list[str]: ...

    @property
    def created_at(self) -> datetime: ...

    @property
    def expires_at(self) -> datetime | None: ...

    @property
    def revoked_at(self) -> datetime | None: ...
