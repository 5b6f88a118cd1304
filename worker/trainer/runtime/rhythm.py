"""When something that happens between steps is due."""

from collections.abc import Callable
from dataclasses import dataclass

from stoker.spec import Duration
from stoker.spec.derived.arithmetic import in_steps
from stoker.spec.derived.timeline import Timeline


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


@dataclass
class EveryEpochs:
    """Where steps per epoch change along the run."""

    interval: int
    timeline: Timeline

    def due(self, step: int, seconds: float) -> bool:
        epoch = self.timeline.begins_epoch(step)
        return epoch is not None and epoch > 0 and epoch % self.interval == 0


@dataclass
class EverySamples:
    """Where samples per step change along the run: after the step that reaches a multiple of an interval."""

    interval: float
    timeline: Timeline

    def due(self, step: int, seconds: float) -> bool:
        now, before = self.timeline.samples_after(step), self.timeline.samples_after(step - 1)
        return now // self.interval > before // self.interval


Rhythm = EverySteps | EveryEpochs | EverySamples | EverySeconds
Pace = Callable[[Duration], Rhythm]
"""Durations as rhythms of one run."""


def rhythm(interval: Duration, per_epoch: int, tokens_per_step: int) -> Rhythm:
    """A duration as a rhythm; seconds are those of the agreed clock, so all ranks keep the same one."""
    steps = in_steps(interval, per_epoch, tokens_per_step)
    if steps is not None:
        return EverySteps(steps)
    assert interval.seconds is not None, "tokens are refused by a rule where there is no text"
    return EverySeconds(interval.seconds)


def pace_of(timeline: Timeline, batch_size: int, tokens_per_sample: int, *, steady: bool) -> Pace:
    """`steady`: batches keep their size for the whole run, so that all lengths but seconds are steps."""

    def pace(interval: Duration) -> Rhythm:
        if not steady and interval.epochs is not None:
            return EveryEpochs(interval.epochs, timeline)
        if not steady and interval.tokens is not None:
            return EverySamples(interval.tokens / tokens_per_sample, timeline)
        return rhythm(interval, timeline.per_epoch(batch_size), batch_size * tokens_per_sample)

    return pace
