"""Debug spec into the guard of each step."""

from collections.abc import Callable, Sequence
from datetime import timedelta

import torch

from stoker.spec.debug import Debug, Fail, Rollback
from worker.trainer.debug.guard import Backoff, Guard, OpenGuard, Sentinel
from worker.trainer.debug.stragglers import Stragglers
from worker.trainer.measure.figures import Figures, Performance
from worker.trainer.runtime.journal import Journal
from worker.trainer.runtime.part import Part
from worker.trainer.runtime.world import World


def patience(spec: Debug) -> timedelta:
    """How long ranks wait for each other: longer than whoever watches them, who knows better which one is to blame."""
    if spec.hang_timeout_seconds is None:
        return timedelta(days=30)
    return timedelta(seconds=60 + 2 * min(max(spec.hang_timeout_seconds, spec.hang_grace_seconds), 1e7))


def watches(spec: Debug) -> bool:
    """Whether each step is judged before it is made, by the norm of its gradients among others."""
    return spec.spike is not None or not isinstance(spec.nan_policy, Fail)


def may_roll_back(spec: Debug) -> bool:
    """Whether the run may go back to a checkpoint, so that it needs one from its start."""
    return isinstance(spec.nan_policy, Rollback) or (spec.spike is not None and isinstance(spec.spike.policy, Rollback))


def rollback_part(spec: Debug, backoff: Backoff) -> Part:
    """What the checkpoint keeps of rollbacks, where the spec allows any."""
    return Part({"backoff": backoff}) if may_roll_back(spec) else Part()


def build_guard(
    spec: Debug, world: World, journal: Journal, *, norm: Callable[[], torch.Tensor], overflowed: Callable[[], bool]
) -> Guard:
    """`norm`: of all gradients before they were bounded. `overflowed`: whether the loss scaler leaves the step out anyway."""
    if not watches(spec):
        return OpenGuard()
    return Sentinel(world, journal, norm, spec.nan_policy, spec.spike, overflowed)


def build_stragglers(spec: Debug, figures: Sequence[Figures], world: World, journal: Journal) -> tuple[Stragglers, ...]:
    """To be read after the figures; nothing where ranks are not measured, or where there is one."""
    measured = [each for each in figures if isinstance(each, Performance)]
    if spec.straggler_factor is None or world.size == 1 or not measured:
        return ()
    return (Stragglers(measured[0], journal, spec.straggler_factor, spec.straggler_reports),)
