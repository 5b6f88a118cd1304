"""Counts that follow from a spec by arithmetic alone. Plan and trainer both take them from here, so they cannot differ."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stoker.spec.base import Duration
from stoker.spec.data.split import Split


@dataclass(frozen=True)
class Sizes:
    """Samples (or tokens) per split."""

    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class Batch:
    """How a global batch is made: size = micro x accumulation x ranks, where ranks that share a model count as one."""

    size: int
    micro: int
    accumulation: int
    ranks: int


def split_sizes(total: int, split: Split) -> Sizes:
    """Held-out parts are shares of the total rounded half up; what is left trains."""
    test = int(total * split.test + 0.5)
    validation = min(int(total * split.validation + 0.5), total - test)
    return Sizes(total - test - validation, validation, test)


def apportion(total: int, counts: Sequence[int]) -> list[int]:
    """Share a total among groups in proportion to their counts by largest remainder; ties go to the first group."""
    everything = sum(counts)
    exact = [total * count / everything if everything else 0.0 for count in counts]
    shares = [int(value) for value in exact]
    order = sorted(range(len(counts)), key=lambda i: (shares[i] - exact[i], i))
    for i in order[: total - sum(shares)]:
        shares[i] += 1
    return shares


def windows(tokens: int, length: int) -> int:
    """Samples in a stream of tokens: windows of `length` inputs, each needing one token after it."""
    return max(0, (tokens - 1) // length)


def hidden_tokens(length: int, rate: float) -> int:
    """Tokens of each window that are hidden and asked for: the share rounded half up, at least one."""
    return min(length, max(1, int(length * rate + 0.5)))


class TimeWindow(NamedTuple):
    """Steps of a sequence that one backward pass goes through; the errors of its last `counted` steps are its own."""

    start: int
    stop: int
    counted: int


def time_windows(length: int, steps: int, stride: int) -> Iterator[TimeWindow]:
    """Windows of at most `steps`, each ending `stride` after the one before; every step is counted once.

    They begin at multiples of the stride, and the last ends with the sequence.
    """
    for end in range(stride, length + stride, stride):
        stop = min(end, length)
        yield TimeWindow(max(0, end - steps), stop, stop - (end - stride))


def batch_of(batch_size: int, micro: int | None, accumulation: int | None, ranks: int) -> Batch | None:
    """The global batch as the spec divides it, or None when it does not divide evenly."""
    if micro is None and accumulation is None:
        accumulation = 1
    if micro is None:
        assert accumulation is not None
        micro = batch_size // (accumulation * ranks)
    elif accumulation is None:
        accumulation = batch_size // (micro * ranks)
    if micro < 1 or accumulation < 1 or micro * accumulation * ranks != batch_size:
        return None
    return Batch(batch_size, micro, accumulation, ranks)


def steps_per_epoch(samples: int, batch_size: int, drop_last: bool) -> int:
    """Optimizer steps in one pass; a partial last batch counts unless it is dropped."""
    return samples // batch_size if drop_last else -(-samples // batch_size)


def share_of(ratio: float, total: int) -> int:
    """A share of the steps of a run, rounded up: 0.1 x 30 is 3, whatever binary fractions say."""
    return math.ceil(ratio * total - 1e-9)


def in_steps(length: Duration, per_epoch: int, tokens_per_step: int | None) -> int | None:
    """A duration as optimizer steps, at least 1; None when it is in seconds, which no arithmetic knows."""
    if length.steps is not None:
        return length.steps
    if length.epochs is not None:
        return max(1, length.epochs * per_epoch)
    if length.tokens is not None and tokens_per_step:
        return max(1, -(-length.tokens // tokens_per_step))
    return None
