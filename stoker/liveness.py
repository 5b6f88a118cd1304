"""The liveness of a rank: a few bytes in its workspace that the trainer overwrites in each step and the agent watches.

`liveness-rank<r>` holds three numbers and the phase. Writing it costs a copy into shared memory and no system call.
"""

import struct
from typing import NamedTuple

LAYOUT = struct.Struct("<qqq16s")
"""Steps made so far, beats so far, the clock in nanoseconds (CLOCK_MONOTONIC), the phase in ASCII padded with zeros."""
NUMBERS = struct.Struct("<qqq")
"""What each beat overwrites."""


class Liveness(NamedTuple):
    step: int
    beats: int
    nanoseconds: int
    phase: str


def name_of(rank: int) -> str:
    return f"liveness-rank{rank}"


def parse(data: bytes) -> Liveness | None:
    """What a rank left; None when it left nothing yet."""
    if len(data) < LAYOUT.size:
        return None
    step, beats, nanoseconds, phase = LAYOUT.unpack(data[: LAYOUT.size])
    return Liveness(step, beats, nanoseconds, phase.rstrip(b"\0").decode("ascii", "replace")) if beats else None
