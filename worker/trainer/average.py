"""Averages of the weights over the steps of a run, to be judged and kept in their place."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol


class Average(Protocol):
    def __call__(self, step: int) -> None:
        """After the optimizer step with this number, from 0."""

    def used(self) -> AbstractContextManager[object]:
        """The model holds the average within, and its own weights again after it."""


class NoAverage:
    def __call__(self, step: int) -> None:
        return

    def used(self) -> AbstractContextManager[object]:
        return nullcontext()


@dataclass(frozen=True)
class InTurn:
    """Several, one after the other: ranks first agree on their weights, then the result is averaged over steps."""

    averages: tuple[Average, ...]

    def __call__(self, step: int) -> None:
        for average in self.averages:
            average(step)

    @contextmanager
    def used(self) -> Iterator[None]:
        with ExitStack() as stack:
            for average in self.averages:
                stack.enter_context(average.used())
            yield
