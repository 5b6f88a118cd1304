"""A job that is being written, whoever does it."""

import time
from collections.abc import Callable
from typing import Protocol

from worker.trainer.staging.job import Job, Written

PATIENCE, SLOWEST = 120.0, 5 << 20
"""A writer is given up after this many seconds, and a second more for each so many bytes."""


class Task(Protocol):
    def ended(self) -> bool:
        """Whether the outcome is known; never waits."""

    def taken(self) -> None:
        """Waits until nothing is read any more that the next update of the weights changes."""

    def outcome(self) -> list[Written]:
        """Waits for it. Raises OSError when the files are not on disk, whatever the reason."""


def patience(job: Job) -> float:
    """Seconds that a job may take."""
    return PATIENCE + job.bytes / SLOWEST


class Done:
    """A job that was written where it was asked for."""

    def __init__(self, run: Callable[[], list[Written]]) -> None:
        self._written: list[Written] = []
        self._error: OSError | None = None
        try:
            self._written = run()
        except OSError as error:
            self._error = error

    @staticmethod
    def failed(error: OSError) -> "Done":
        """One that could not be started."""
        task = Done(list)
        task._error = error
        return task

    def ended(self) -> bool:
        return True

    def taken(self) -> None:
        """There is nothing to wait for."""

    def outcome(self) -> list[Written]:
        if self._error is not None:
            raise self._error
        return self._written


def deadline(job: Job) -> float:
    return time.monotonic() + patience(job)
