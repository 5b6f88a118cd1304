"""Steps of runs whose batches change, against a walk through the epochs."""

from typing import Any

from stoker.document.resolve import resolve
from stoker.plan import plan
from tests.support.spec_cases import TABLE, TABLE_JOB, changed


def _steps(**training: Any) -> Any:
    resolved = resolve(changed(TABLE_JOB, {"training": training, "data.split": {"validation": 0.2, "test": 0}}), TABLE)
    return plan(resolved.spec, TABLE).steps


def _milestones(*pairs: tuple[dict[str, int], int]) -> dict[str, Any]:
    return {"mode": "schedule", "milestones": [{"after": after, "batch_size": size} for after, size in pairs]}


def test_steps_of_a_schedule() -> None:
    """120 samples: an epoch of 30s, one that begins with two of 30 and ends with one of 50 and 10, then one of 50s."""
    found = _steps(epochs=3, batch_size=30, dynamic_batch=_milestones(({"steps": 6}, 50)))
    assert (found.per_epoch, found.total, found.samples, found.epochs, found.unknown) == (4, 4 + 4 + 3, 360, 3.0, None)
    found = _steps(max_steps=7, batch_size=30, dynamic_batch=_milestones(({"steps": 6}, 50)))
    assert (found.total, found.samples) == (7, 6 * 30 + 50)


def test_steps_of_batches_that_grow_by_themselves_are_not_known() -> None:
    found = _steps(epochs=3, batch_size=30, dynamic_batch={"mode": "on_plateau", "max": 60})
    assert (found.total, found.samples, found.epochs) == (None, 360, 3.0)
    assert "dynamic_batch" in found.unknown
    found = _steps(max_steps=9, batch_size=30, dynamic_batch={"mode": "on_plateau", "max": 60})
    assert (found.total, found.samples) == (9, None)
