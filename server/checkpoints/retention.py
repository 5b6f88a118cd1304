"""Which checkpoints the policy no longer keeps once a new one is saved: a pure function."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stoker.spec.checkpoint import Checkpoint as Policy


@dataclass(frozen=True)
class Kept:
    """An available checkpoint of the accepted lineage."""

    id: str
    step: int
    final: bool
    value: float | None
    """The monitored metric at it; null when it was not measured or is not finite."""


def superfluous(checkpoints: Sequence[Kept], policy: Policy, mode: str, pinned: frozenset[int]) -> list[str]:
    """Ids to expire.

    Kept are the newest `keep_last` (at least two), the best `keep_best` by the monitored metric (the earlier of equal ones), every
    final one, and the pinned steps.
    """
    newest = sorted(checkpoints, key=lambda c: c.step, reverse=True)[: max(2, policy.keep_last)]
    keep = {c.id for c in newest} | {c.id for c in checkpoints if c.final or c.step in pinned}
    keep |= {c.id for c in ranked(checkpoints, mode)[: policy.keep_best]}
    return [c.id for c in checkpoints if c.id not in keep]


def ranked(checkpoints: Sequence[Kept], mode: str) -> list[Kept]:
    """Measured ones, best first; the earlier of equal ones first."""
    sign = -1.0 if mode == "max" else 1.0
    measured = [(sign * c.value, c.step, c) for c in checkpoints if c.value is not None and math.isfinite(c.value)]
    return [c for _, _, c in sorted(measured, key=lambda m: m[:2])]
