"""Curves that never lie: points in buckets that depend on the steps alone.

A bucket is `width` steps wide and begins at a multiple of it. The width comes from the length that the run announced, so
that it is the same from the first point to the last; a run without an announced length doubles its assumed length when it
passes it. Within one width, a bucket changes only when a point falls into it. Every point counts: a spike shows as min or max.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from server.metrics.packed import Floats, Ints


@dataclass(frozen=True)
class Buckets:
    """One key; all arrays (buckets,). min and max leave NaN out unless there is nothing else; mean does not."""

    steps: Ints
    """First step of each bucket that has points."""
    min: Floats
    mean: Floats
    max: Floats
    last: Floats
    count: Ints


def width_of(total_steps: int | None, last_step: int, max_points: int) -> int:
    """The least of 1, 2, 5, 10, 20, 50 … with which the run's steps 0 … length need at most `max_points` buckets."""
    announced = max(total_steps or 0, 0)
    length = announced + 1 if last_step <= announced else 1 << last_step.bit_length()
    scale = 1
    while True:
        for digit in (1, 2, 5):
            if -(-length // (digit * scale)) <= max_points:
                return digit * scale
        scale *= 10


def bucketed(steps: Sequence[Ints], values: Sequence[Floats], width: int) -> Buckets:
    """Buckets of points given in the order in which they were reported, in pieces.

    Points of one step keep their order, so `last` is the last reported one.
    """
    step, value = np.concatenate(steps), np.concatenate(values)
    if bool(np.any(step[1:] < step[:-1])):
        order = np.argsort(step, kind="stable")
        step, value = step[order], value[order]
    bucket = step if width == 1 else step // width
    starts = np.concatenate(([0], np.flatnonzero(bucket[1:] != bucket[:-1]) + 1))
    count = np.diff(np.append(starts, len(step)))
    with np.errstate(all="ignore"):
        low, high = np.fmin.reduceat(value, starts), np.fmax.reduceat(value, starts)
        mean = _mean(value, starts, count, low, high)
    return Buckets(bucket[starts] * width, low, mean, high, value[starts + count - 1], count)


def _mean(value: Floats, starts: Ints, count: Ints, low: Floats, high: Floats) -> Floats:
    """Sums in the order of the points; where finite values overflow a sum, of scaled ones. Never outside [min, max]."""
    mean: Floats = np.add.reduceat(value, starts) / count
    overflown = ~np.isfinite(mean) & np.isfinite(np.add.reduceat(np.where(np.isfinite(value), 0.0, value), starts))
    if bool(np.any(overflown)):
        scaled = np.add.reduceat(value / np.repeat(count, count), starts)
        mean = np.where(overflown, scaled, mean)
    return np.where(np.isnan(mean), mean, np.clip(mean, low, high))
