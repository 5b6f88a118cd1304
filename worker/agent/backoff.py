"""How long to wait before trying again."""

import random


class Backoff:
    """Doubles from `base` up to `limit` seconds; half of each wait is drawn, so that agents do not return in step."""

    def __init__(self, base: float, limit: float) -> None:
        self._base = base
        self._limit = max(base, limit)
        self._tries = 0
        self._random = random.Random()

    def reset(self) -> None:
        self._tries = 0

    def next(self) -> float:
        """Seconds to wait now."""
        longest = min(self._limit, self._base * 2.0 ** min(self._tries, 30))
        self._tries += 1
        return longest * (0.5 + 0.5 * self._random.random())
