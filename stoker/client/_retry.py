"""When to ask again, and after how long. No IO: the sync and the async client both follow it."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stoker.client._wire import Answer, Call, error_of

BUSY = frozenset({429, 502, 503, 504})
"""Answers after which the same request may succeed."""
BUSY_CODES = frozenset({"idempotency_in_progress", "being_collected"})
FULL = frozenset({"queue_full", "quota_exceeded", "too_many_streams"})
"""Refusals that a few seconds do not change."""


@dataclass(frozen=True)
class Retries:
    """Exponential backoff with full jitter (Brooker, "Exponential Backoff and Jitter", 2015)."""

    count: int = 5
    """Further tries after the first."""
    first: float = 0.2
    """Seconds of the first pause at most."""
    longest: float = 8.0
    """Seconds of any pause at most; a longer Retry-After is not waited for."""
    draw: Callable[[], float] = random.random
    """A number from 0 to 1."""

    def pause(self, tries: int) -> float:
        """Seconds before try number `tries` + 1."""
        return float(min(self.longest, self.first * 2 ** (tries - 1))) * (0.5 + 0.5 * self.draw())

    def after_silence(self, call: Call[Any], tries: int) -> float | None:
        """Seconds to wait when no answer came; None to give up."""
        return self.pause(tries) if call.repeatable and tries <= self.count else None

    def after_answer(self, call: Call[Any], answer: Answer, tries: int) -> float | None:
        """Seconds to wait before asking again; None when the answer stands."""
        if answer.status < 400 or tries > self.count or not call.repeatable:
            return None
        error = error_of(answer)
        if error.problem.code not in BUSY_CODES and (answer.status not in BUSY or error.problem.code in FULL):
            return None
        asked = error.retry_after or 0.0
        return None if asked > self.longest else max(asked, self.pause(tries))
