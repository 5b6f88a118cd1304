"""The liveness that a rank leaves for whoever watches it: in each step and with each change of what it is busy with."""

import mmap
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from stoker.liveness import LAYOUT, NUMBERS, name_of

P = ParamSpec("P")
R = TypeVar("R")


class Heartbeat:
    """Beats cost about half a microsecond."""

    def __init__(self, home: Path, rank: int) -> None:
        path = home / name_of(rank)
        path.write_bytes(bytes(LAYOUT.size))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), LAYOUT.size)
        self.step = self._beats = 0
        """Steps made when it last beat."""

    def beat(self, step: int) -> None:
        """Still alive, with as many steps made."""
        self.step = step
        self._beats += 1
        NUMBERS.pack_into(self._shared, 0, step, self._beats, time.monotonic_ns())

    def phase(self, name: str) -> None:
        """Busy with something else from now on."""
        self._shared[NUMBERS.size :] = name.encode("ascii", "replace")[:16].ljust(16, b"\0")
        self.beat(self.step)

    def around(self, call: Callable[P, R]) -> Callable[P, R]:
        """The same call, with a beat each time: for what is long but made of many small parts."""

        def beating(*args: P.args, **kwargs: P.kwargs) -> R:
            self.beat(self.step)
            return call(*args, **kwargs)

        return beating
