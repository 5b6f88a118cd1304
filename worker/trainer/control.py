"""What ranks agree on between steps: whether somebody was told to stop, and what time it is.

Nobody waits for the answer: it is asked after one step and read after the next, so a stop takes effect one step later.
"""

import signal
import time
from types import FrameType
from typing import NamedTuple

import torch
import torch.distributed as dist

from worker.trainer.world import World


class StopSignal:
    """Remembers SIGTERM and SIGINT from the moment it is made."""

    def __init__(self) -> None:
        self.raised = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.raised = True


class Agreed(NamedTuple):
    stop: bool
    """Whether any rank was told to stop."""
    seconds: float
    """Rank 0's training time over all attempts."""


class Control:
    """Asked once per step by every rank."""

    def __init__(self, world: World, signalled: StopSignal) -> None:
        self._world, self._signal = world, signalled
        self._group = dist.new_group(backend="gloo") if world.device.type == "cuda" and world.size > 1 else None
        self._pending: tuple[dist.Work, torch.Tensor] | None = None
        self._start = time.monotonic()

    def set_seconds(self, seconds: float) -> None:
        """Continue the clock of an earlier attempt."""
        self._start = time.monotonic() - seconds

    @property
    def seconds(self) -> float:
        """This rank's clock: training time over all attempts."""
        return time.monotonic() - self._start

    def exchange(self) -> Agreed:
        """The same answer on every rank: alone, of now; else what was true one call earlier."""
        if self._world.size == 1:
            return Agreed(self._signal.raised, self.seconds)
        answer = self.settle()
        message = torch.tensor([float(self._signal.raised), self.seconds if self._world.is_lead else 0.0], dtype=torch.float64)
        work = dist.all_reduce(message, group=self._group, async_op=True)
        assert work is not None
        self._pending = work, message
        return answer

    def settle(self) -> Agreed:
        """Wait for the question that is under way, if any."""
        if self._pending is None:
            return Agreed(False, 0.0)
        work, message = self._pending
        work.wait()
        self._pending = None
        stop, seconds = message.tolist()
        return Agreed(stop > 0, seconds)
