"""When something that happens between steps is due."""

from dataclasses import dataclass

from stoker.spec import Duration
from stoker.spec.arithmetic import in_steps


@dataclass
class EverySteps:
    interval: int

    def due(self, step: int, seconds: float) -> bool:
        return step % self.interval == 0


@dataclass
class EverySeconds:
    interval: float
    beats: int | None = None
    """Whole intervals that had passed when it was last asked."""

    def due(self, step: int, seconds: float) -> bool:
        before, self.beats = self.beats, int(seconds / self.interval)
        return before is not None and self.beats > before


Rhythm = EverySteps | EverySeconds


def rhythm(interval: Duration, per_epoch: int, tokens_per_step: int) -> Rhythm:
    """A duration as a rhythm; seconds are those of the agreed clock, so all ranks keep the same one."""
    steps = in_steps(interval, per_epoch, tokens_per_step)
    if steps is not None:
        return EverySteps(steps)
    assert interval.seconds is not None, "tokens are refused by a rule where there is no text"
    return EverySeconds(interval.seconds)
