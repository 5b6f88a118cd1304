"""What ranks agree on between steps: whether somebody was told to stop, what time it is, and what else somebody asks.

Nobody waits for the answer: it is asked after one step and read after the next, so a stop takes effect one step later.
"""

import signal
import time
from types import FrameType
from typing import NamedTuple, Protocol

import torch
import torch.distributed as dist

from worker.trainer.runtime.world import World


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


class Question(Protocol):
    """Something that all ranks are to learn at the same step, carried by the exchange that there is anyway."""

    def ask(self) -> float:
        """This rank's number."""

    def hear(self, total: float) -> None:
        """The sum over all ranks of what they said, at the same step on each."""


class Control:
    """Asked once per step by every rank."""

    def __init__(self, world: World, signalled: StopSignal, every: int = 1) -> None:
        """`every`: calls of which one asks; in between the answer is that there is nothing new."""
        self._world, self._signal, self._every = world, signalled, every
        self._calls, self._known = 0, 0.0
        self._group = dist.new_group(backend="gloo") if world.device.type == "cuda" and world.size > 1 else None
        self._pending: tuple[dist.Work, torch.Tensor, tuple[Question, ...]] | None = None
        self._start = time.monotonic()
        self.questions: tuple[Question, ...] = ()
        """What else is asked; every rank puts in and takes out the same at the same step."""

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
            for question in self.questions:
                question.hear(question.ask())
            return Agreed(self._signal.raised, self.seconds)
        self._calls += 1
        if self._calls % self._every:
            return Agreed(False, self._known)
        answer = self.settle()
        self._known = answer.seconds
        asked, seconds = self.questions, self.seconds if self._world.is_lead else 0.0
        message = torch.tensor([float(self._signal.raised), seconds, *(q.ask() for q in asked)], dtype=torch.float64)
        work = dist.all_reduce(message, group=self._group, async_op=True)
        assert work is not None
        self._pending = work, message, asked
        return answer

    def settle(self) -> Agreed:
        """Wait for what is under way, if anything. Questions that were taken out meanwhile hear nothing."""
        if self._pending is None:
            return Agreed(False, 0.0)
        work, message, asked = self._pending
        work.wait()
        self._pending = None
        stop, seconds, *totals = message.tolist()
        for question, total in zip(asked, totals, strict=True):
            if question in self.questions:
                question.hear(total)
        return Agreed(stop > 0, seconds)
