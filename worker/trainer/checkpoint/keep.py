"""Which checkpoints stay on the worker's disk: the newest, and the best by the metric that the policy names.

The server keeps more, by the same policy; here it only matters where a run goes back to, or on from.
"""

import json
import os
import shutil

from worker.trainer.assembly import Run
from worker.trainer.checkpoint.places import STATE, directory, steps

KEPT = 3
"""Newest checkpoints that stay."""


def prune(run: Run, newest: int = KEPT) -> None:
    """Delete the others; the first rank of each node does it for the node's disk."""
    if not run.world.is_lead and os.environ.get("LOCAL_RANK", "0") != "0":
        return
    found = steps(run.home)
    best = _best(run, found)
    for old in found[newest:]:
        if old != best:
            shutil.rmtree(directory(run.home, old), ignore_errors=True)


def _best(run: Run, found: list[int]) -> int | None:
    """The step of the best one, of equal ones the earliest; None when none is to be kept, or none was judged."""
    policy = run.spec.checkpoint
    if not policy.keep_best:
        return None
    sign = -1.0 if (policy.mode or run.examiner.modes.get(policy.monitor.partition("/")[2], "min")) == "max" else 1.0
    judged = [(sign * value, step) for step in found if (value := _value(run, step, policy.monitor)) is not None]
    return min(judged)[1] if judged else None


def _value(run: Run, step: int, key: str) -> float | None:
    try:
        value = json.loads((directory(run.home, step) / STATE).read_bytes())["metrics"].get(key)
    except (OSError, ValueError, KeyError):
        return None
    return float(value) if isinstance(value, int | float) and value == value else None
