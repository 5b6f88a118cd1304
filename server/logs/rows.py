"""A row of the log_chunks table as its readers see it."""

from typing import Protocol


class LogRow(Protocol):
    """A Core row."""

    @property
    def epoch(self) -> int: ...

    @property
    def seq(self) -> int: ...

    @property
    def rank(self) -> int: ...

    @property
    def stream(self) -> str: ...

    @property
    def offset(self) -> int: ...

    @property
    def data(self) -> bytes: ...
