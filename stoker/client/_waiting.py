"""Waiting without IO: how long to ask for next, and when an outage has lasted too long."""

import time
from collections.abc import Callable

from stoker.client import _calls
from stoker.client._wire import Call
from stoker.errors import ApiError, ServerFault, ServerUnreachable, WaitTimeout
from stoker.status import is_terminal
from stoker.views import JobView

LONG_POLL = 60.0
"""Seconds the server is asked to hold an answer."""
PATIENCE = 300.0
"""Seconds of silence that waiting rides out: a restart of the server must not end it."""


class Wait:
    """Drives a wait: `call`, then `heard` or `failed`, which say how many seconds to pause, until `done`."""

    def __init__(self, job_id: str, timeout: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.job_id, self.clock = job_id, clock
        self.until = None if timeout is None else clock() + timeout
        self.job: JobView | None = None
        self._heard = clock()
        self._asked = clock()

    @property
    def done(self) -> bool:
        return self.job is not None and is_terminal(self.job.state)

    def call(self) -> Call[JobView]:
        """Raises WaitTimeout when the time is over."""
        self._asked = self.clock()
        left = LONG_POLL if self.until is None else self.until - self._asked
        if left <= 0 and self.job is not None:
            raise WaitTimeout(f"{self.job_id} is still {self.job.state}")
        return _calls.job(self.job_id, wait=True, seconds=round(max(0.0, min(LONG_POLL, left)), 3))

    def heard(self, job: JobView) -> float:
        """Keep the answer; seconds until the next question. A server that answers at once is not asked in a tight loop."""
        self.job, self._heard = job, self.clock()
        left = 1.0 if self.until is None else max(0.0, self.until - self._heard)
        return 0.0 if self.done or self._heard - self._asked > 1 else min(0.5, left)

    def failed(self, error: Exception) -> float:
        """Seconds to pause after a failure. Raises the error when it is final or the outage too long."""
        final = isinstance(error, ApiError) and not isinstance(error, ServerFault)
        now = self.clock()
        if final or not isinstance(error, (ApiError, ServerUnreachable)) or now - self._heard > PATIENCE:
            raise error
        if self.until is not None and now >= self.until:
            raise WaitTimeout(f"{self.job_id} may still run; the server was last seen {now - self._heard:.0f} s ago") from error
        return 1.0
