"""What a builder adds to a run: saved state, reported values, and hooks between steps and at its end."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch

from worker.trainer.runtime.hooks import FinishHook, StepHook
from worker.trainer.runtime.state import Stateful

Gauges = Mapping[str, Callable[[], torch.Tensor]]
"""Values that are reported with the training metrics, by key."""


@dataclass(frozen=True)
class Part:
    """All fields are empty for a feature that is off."""

    stateful: Mapping[str, Stateful] = field(default_factory=dict)
    """What the checkpoint keeps, by a name that no other part has."""
    gauges: Gauges = field(default_factory=dict)
    step_hooks: tuple[StepHook, ...] = ()
    """Called between steps, each on its own rhythm."""
    finish_hooks: tuple[FinishHook, ...] = ()
    """Called once with the final weights, before they are saved."""
    exit_hooks: tuple[FinishHook, ...] = ()
    """Called once when the run has ended and is saved."""


def merged(parts: Iterable[Part]) -> Part:
    """All parts as one, in their order; values that several parts report under one key are added."""
    stateful: dict[str, Stateful] = {}
    gauges: dict[str, Callable[[], torch.Tensor]] = {}
    step_hooks: list[StepHook] = []
    finish_hooks: list[FinishHook] = []
    exit_hooks: list[FinishHook] = []
    for part in parts:
        assert not stateful.keys() & part.stateful.keys(), "two parts would overwrite each other in the checkpoint"
        stateful |= part.stateful
        for key, read in part.gauges.items():
            gauges[key] = _sum(gauges[key], read) if key in gauges else read
        step_hooks += part.step_hooks
        finish_hooks += part.finish_hooks
        exit_hooks += part.exit_hooks
    return Part(stateful, gauges, tuple(step_hooks), tuple(finish_hooks), tuple(exit_hooks))


def _sum(one: Callable[[], torch.Tensor], other: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    return lambda: one() + other()
