"""Progress of several files at once, from several threads, as one pair of numbers."""

import threading
from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


class Counter:
    """Adds up how far each file is."""

    def __init__(self, total: int, tell: Progress | None) -> None:
        self.total, self.tell = total, tell
        self._done: dict[str, int] = {}
        self._lock = threading.Lock()

    def at(self, name: str, offset: int) -> None:
        """A file is there up to an offset."""
        with self._lock:
            self._done[name] = offset
            if self.tell is not None:
                self.tell(sum(self._done.values()), self.total)

    def passed(self, name: str, chunk: bytes) -> bytes:
        """Count a chunk and hand it on."""
        self.at(name, self._done[name] + len(chunk))
        return chunk
