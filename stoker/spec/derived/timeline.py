"""Which samples each step takes when the batch size changes along the run: arithmetic that plan, rules and trainer share.

An epoch is one order of all samples. Steps go through it from the front, each with the batch size of its time; the last step of
an epoch takes what is left, or leaves it out when the loader drops partial batches. A change in the middle of an epoch goes on
with the samples that are left of it, so that each sample is seen once per epoch whatever changes when.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from stoker.spec.base import Duration
from stoker.spec.derived.arithmetic import steps_per_epoch


class Segment(NamedTuple):
    """Steps of one batch size."""

    step: int
    """The first of them."""
    epoch: int
    offset: int
    """Samples of that epoch that were used before."""
    size: int


class Place(NamedTuple):
    """Where one step stands."""

    segment: int
    epoch: int
    begin: int
    """Offset in the epoch at which a stretch of equal batches begins."""
    at: int
    """Number of the batch in that stretch."""
    end: int
    """Offset in the epoch at which the stretch ends."""
    size: int

    @property
    def offset(self) -> int:
        return self.begin + self.at * self.size


class Timeline:
    """Grows by `change` only, at steps that were not made yet."""

    def __init__(self, samples: int, size: int, drop_last: bool) -> None:
        """`samples` of one epoch. Raises ValueError when they do not fill one batch."""
        self._samples, self._drop = samples, drop_last
        self.segments: list[Segment] = []
        self._append(Segment(0, 0, 0, size))

    @property
    def constant(self) -> bool:
        return len(self.segments) == 1

    def change(self, step: int, size: int) -> None:
        """From the step with this number on, batches have this size. Raises ValueError when no batch fills."""
        self.segments = [segment for segment in self.segments if segment.step < step]
        if step == 0:
            self._append(Segment(0, 0, 0, size))
            return
        before = self.place(step - 1)
        self._append(Segment(step, before.epoch, min(before.offset + before.size, before.end), size))

    def lay_out(self, changes: Iterable[tuple[Duration, int]], tokens_per_sample: int) -> None:
        """Batch sizes from lengths of the run on, in order. Raises ValueError for one that no arithmetic knows, that is not after
        the one before, or whose batch never fills.
        """
        for after, size in changes:
            step = self.steps_of(after, tokens_per_sample)
            if step is None:
                raise ValueError("a change of the batch size stands after steps, epochs, or tokens of text")
            if step <= self.segments[-1].step:
                raise ValueError(f"the change to {size} samples comes after {step} steps, not after the one before it")
            self.change(step, size)

    def restore(self, segments: Sequence[Sequence[int]]) -> None:
        """As another timeline of the same samples was."""
        self.segments = [Segment(*each) for each in segments]

    def _append(self, new: Segment) -> None:
        if self.per_epoch(new.size) == 0:
            raise ValueError(f"{self._samples} training samples do not fill one batch of {new.size}")
        left = self._samples - new.offset
        if left == 0 or (self._drop and left < new.size):
            new = Segment(new.step, new.epoch + 1, 0, new.size)
        self.segments.append(new)

    def per_epoch(self, size: int) -> int:
        """Steps of an epoch whose batches all have this size."""
        return steps_per_epoch(self._samples, size, self._drop)

    def _used(self, segment: Segment, offset: int) -> int:
        """Samples that steps of a segment take of an epoch from an offset on."""
        rest = self._samples - offset
        return rest // segment.size * segment.size if self._drop else rest

    def _first(self, segment: Segment) -> int:
        """Steps of a segment in the epoch in which it begins."""
        return steps_per_epoch(self._samples - segment.offset, segment.size, self._drop)

    def place(self, step: int) -> Place:
        """Of the step with this number, from 0."""
        at = bisect_right(self.segments, step, key=lambda segment: segment.step) - 1
        segment = self.segments[at]
        index, first = step - segment.step, self._first(segment)
        if index < first:
            end = segment.offset + self._used(segment, segment.offset)
            return Place(at, segment.epoch, segment.offset, index, end, segment.size)
        epochs, index = divmod(index - first, self.per_epoch(segment.size))
        return Place(at, segment.epoch + 1 + epochs, 0, index, self._used(segment, 0), segment.size)

    def samples_after(self, steps: int) -> int:
        """Samples that the first steps of the run take."""
        total = 0
        for at, segment in enumerate(self.segments):
            until = self.segments[at + 1].step if at + 1 < len(self.segments) else steps
            total += self._taken(segment, max(0, min(until, steps) - segment.step))
        return total

    def _taken(self, segment: Segment, steps: int) -> int:
        first = self._first(segment)
        rest = self._used(segment, segment.offset)
        if steps <= first:
            return min(steps * segment.size, rest)
        whole = self._used(segment, 0)
        epochs, more = divmod(steps - first, self.per_epoch(segment.size))
        return rest + epochs * whole + min(more * segment.size, whole)

    def epochs_after(self, steps: int) -> float:
        """How many epochs the first steps are."""
        if self.constant:
            return steps / self.per_epoch(self.segments[0].size)
        where = self.place(steps)
        return where.epoch + where.offset / self._samples

    def begins_epoch(self, step: int) -> int | None:
        """The number of the epoch that begins with this step; None for a step in the middle of one."""
        where = self.place(step)
        return where.epoch if where.offset == 0 else None

    def steps_of_epochs(self, epochs: int) -> int:
        """Steps up to the end of so many epochs."""
        return self._least(lambda steps: self.place(steps).epoch >= epochs)

    def steps_of_samples(self, samples: int) -> int:
        """The least number of steps that take so many samples."""
        return self._least(lambda steps: self.samples_after(steps) >= samples)

    def steps_of(self, length: Duration, tokens_per_sample: int) -> int | None:
        """A length in steps; None for seconds, and for tokens where there are none."""
        if length.steps is not None:
            return length.steps
        if length.epochs is not None:
            return self.steps_of_epochs(length.epochs)
        if length.tokens is not None and tokens_per_sample:
            return self.steps_of_samples(-(-length.tokens // tokens_per_sample))
        return None

    def _least(self, reached: Callable[[int], bool]) -> int:
        low, high = 0, 1
        while not reached(high):
            low, high = high, high * 2
        if reached(low):
            return low
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if reached(middle) else (middle, high)
        return high
