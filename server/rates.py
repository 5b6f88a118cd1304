"""How many requests a key may make: a bucket of tokens per key, refilled steadily, in the memory of each process."""

import time
from collections.abc import Callable

from server.errors import problem

_KEYS = 10_000


class Rates:
    """Args: `per_second` tokens a key's bucket gains; `burst` tokens it holds at most, and at first."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second, self._burst, self._clock = per_second, float(burst), clock
        self._buckets: dict[str, tuple[float, float]] = {}
        """Key id → (tokens, when they were counted)."""

    def take(self, key_id: str) -> None:
        """One token. Raises 429 `rate_limited` with the seconds until the next one."""
        now = self._clock()
        tokens, at = self._buckets.get(key_id, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) * self._per_second)
        if tokens < 1:
            seconds = int((1 - tokens) / self._per_second) + 1
            raise problem(429, "rate_limited", "This key asks too often; wait.", headers={"Retry-After": str(seconds)})
        if len(self._buckets) >= _KEYS and key_id not in self._buckets:
            self._forget(now)
        self._buckets[key_id] = (tokens - 1, now)

    def _forget(self, now: float) -> None:
        """Full buckets say nothing."""
        kept = {k: (t, at) for k, (t, at) in self._buckets.items() if t + (now - at) * self._per_second < self._burst}
        self._buckets = kept if len(kept) < _KEYS else {}
