"""Every waiting time of the protocol, in seconds, scaled together so that tests run the same protocol faster."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class TimerSettings:
    """Defaults as published; `scaled` multiplies all of them.

    Safety needs self_fence + stop_grace + margin <= lease: an agent cut off from the server is gone before its lease ends.
    """

    heartbeat: float = 10.0
    """Between two reports of an agent or a worker that has nothing else to say."""
    report: float = 1.0
    """Between two reports of an agent that has something to say."""
    lease: float = 300.0
    """Silence after which an attempt is given to another worker."""
    self_fence: float = 240.0
    """Silence after which an agent saves and stops by itself."""
    stop_grace: float = 30.0
    """From a request to stop to the kill of the ranks."""
    margin: float = 30.0
    sweep: float = 20.0
    """Between two looks of the server for work that a lost wake-up left behind."""
    reap: float = 5.0
    """Between two looks of the server for expired leases."""
    backoff: float = 1.0
    """Before the first retry; doubled for each further one, at most 60 times this."""
    collect: float = 86_400.0
    """How long bytes are kept that no manifest names, and uploads that nobody continues."""

    def scaled(self, factor: float) -> "TimerSettings":
        return TimerSettings(**{name: getattr(self, name) * factor for name in self.__dataclass_fields__})

    def check(self) -> None:
        """Raises ValueError when the numbers would let two attempts of one job run at once."""
        if self.self_fence + self.stop_grace + self.margin > self.lease * 1.0001:
            raise ValueError("timers: self_fence + stop_grace + margin must not exceed lease")


def timers_from_environment() -> TimerSettings:
    """The published timers times STOKER_TIME_SCALE (default 1).

    Raises ValueError when the scale is not a number above zero.
    """
    timers = TimerSettings().scaled(_scale())
    timers.check()
    return timers


def scaled_seconds(seconds: float) -> float:
    """A time that a spec names, times STOKER_TIME_SCALE: with scaled timers whole runs are rehearsed faster."""
    return seconds * _scale()


def _scale() -> float:
    text = os.environ.get("STOKER_TIME_SCALE", "1")
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 1e-4 <= factor <= 1e4:
        raise ValueError(f"STOKER_TIME_SCALE must be a number above zero, not {text!r}")
    return factor
