"""What a run does between steps beside logging, evaluating and saving."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from worker.trainer.runtime.rhythm import EverySteps, Rhythm


class Act(Protocol):
    def __call__(self, step: int) -> None:
        """After as many steps."""


@dataclass(frozen=True)
class StepHook:
    """Something done on its own rhythm, on every rank: histograms, a profile."""

    rhythm: Rhythm
    act: Act


def after_each_step(act: Callable[[], None] | None) -> tuple[StepHook, ...]:
    """None: nothing."""
    return () if act is None else (StepHook(EverySteps(1), lambda step: act()),)


class FinishHook(Protocol):
    def __call__(self, step: int, reason: str) -> None:
        """Once, after as many steps, on every rank; `reason` is why the run ended."""


def one_by_one(finish_hooks: Sequence[FinishHook]) -> FinishHook:
    """Several, in this order."""

    def end(step: int, reason: str) -> None:
        for ending in finish_hooks:
            ending(step, reason)

    return end
