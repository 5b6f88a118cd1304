"""Averages of the weights over the steps of a run, to be judged and kept in their place."""

from contextlib import AbstractContextManager, nullcontext
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
