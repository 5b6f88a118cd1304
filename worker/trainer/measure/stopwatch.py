"""Where the time of a run goes: every moment belongs to one part, so the parts add up to the whole."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Literal, Protocol

Part = Literal["startup", "data", "forward", "compute", "evaluation", "checkpoint", "insight"]
"""startup: data, model and checkpoint are read · data: waiting for the next batch · forward: the passes that lead to the loss,
where ranks wait for each other after them · compute: all other work of steps and their reports · insight: what step_hooks do."""

PARTS: tuple[Part, ...] = ("startup", "data", "forward", "compute", "evaluation", "checkpoint", "insight")
STEPS: tuple[Part, ...] = ("data", "forward", "compute")
"""Parts that steps are made of."""


class Watch(Protocol):
    def start(self, step: int) -> None:
        """The next step, after as many, is about to be made."""

    def during(self, part: Part) -> AbstractContextManager[object]:
        """Time within belongs to a part, and again to the one around it afterwards."""


class Stopwatch:
    """Seconds by part. Turning to another part costs one reading of the clock."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.seconds: dict[Part, float] = dict.fromkeys(PARTS, 0.0)
        """Up to the last turn."""
        self._part: Part = "startup"
        self.first: int | None = None
        """Steps made before this process made its own; None until it makes them."""
        self.began = self._since = clock()

    def start(self, step: int) -> None:
        self.first = step
        self.turn("compute")

    def turn(self, part: Part) -> Part:
        """Time from now on belongs to this part; the one before it."""
        now, before = self._clock(), self._part
        self.seconds[before] += now - self._since
        self._part, self._since = part, now
        return before

    @property
    def wall(self) -> float:
        """Seconds since it was made."""
        return self._clock() - self.began

    def read(self) -> dict[Part, float]:
        """Seconds by part up to now."""
        self.turn(self._part)
        return dict(self.seconds)

    def during(self, part: Part) -> "_Within":
        return _Within(self, part)


class _Within:
    __slots__ = ("_around", "_part", "_watch")

    def __init__(self, watch: Stopwatch, part: Part) -> None:
        self._watch, self._part = watch, part

    def __enter__(self) -> None:
        self._around = self._watch.turn(self._part)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._watch.turn(self._around)


class NoWatch:
    """Nobody asks where the time goes."""

    _nothing = nullcontext()

    def start(self, step: int) -> None:
        return

    def during(self, part: Part) -> AbstractContextManager[object]:
        return self._nothing
