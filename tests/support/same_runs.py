"""Runs that must compute the same: what one process makes of a job, and how another way to run it is compared with that."""

import json
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stoker.events import Started
from tests.support.trainer_runs import Nursery, events, final_checkpoint, finished, log, same_bits, series, tensors, trained


class Alone:
    """The run of one process for each job, made once and left where it is."""

    def __init__(self, nursery: Nursery, root: Path) -> None:
        self._nursery, self._root = nursery, root
        self._made: dict[str, Path] = {}

    def __call__(self, spec: Mapping[str, Any]) -> Path:
        key = json.dumps(spec)
        if key not in self._made:
            self._made[key] = trained(self._nursery, self._root / f"run-{len(self._made)}", spec)
        return self._made[key]


def differences(one: Path, other: Path, file: str = "model.safetensors") -> dict[str, float]:
    """By name, the largest difference of a tensor in the last checkpoints of two runs, which hold the same names."""
    a, b = (tensors(final_checkpoint(home) / file) for home in (one, other))
    assert a.keys() == b.keys()
    return {name: float((a[name].double() - b[name].double()).abs().max()) for name in a}


def assert_same(one: Path, other: Path) -> None:
    """Weights to 1e-6 and every curve to 2e-6."""
    off = differences(one, other)
    assert max(off.values()) <= 1e-6, off
    a, b = series(one), series(other)
    assert a.keys() == b.keys()
    np.testing.assert_allclose([b[key] for key in a], list(a.values()), rtol=2e-6, atol=2e-6)


def assert_near(one: Path, other: Path, tolerance: float) -> None:
    """Weights to a tolerance, and losses to three times that."""
    off = differences(one, other)
    assert max(off.values()) <= tolerance, off
    a, b = ({key: value for key, value in series(home).items() if key[1].endswith("/loss")} for home in (one, other))
    assert a.keys() == b.keys()
    np.testing.assert_allclose([b[key] for key in a], list(a.values()), rtol=0, atol=3 * tolerance)


def killed_twice(nursery: Nursery, home: Path, ranks: int, steps: Iterable[int], inject: str = "") -> None:
    """A run that is killed at the first of two steps, asked to stop at the second, and resumed to its end after both."""
    for step, how in zip(steps, (signal.SIGKILL, signal.SIGTERM), strict=True):
        running = nursery.start(home, ranks, inject)
        running.reached(step)
        running.signal(how)
        assert set(running.wait()) <= {0, 75, -9}, log(home)
    assert nursery.run(home, ranks, inject) == [0] * ranks, log(home)
    assert any(isinstance(event, Started) and event.step > 0 for event in events(home)), "no attempt resumed"


def assert_same_bits(one: Path, other: Path, *, but: frozenset[str] = frozenset()) -> None:
    """Curves, last metrics, and the tensors of every file of the last checkpoints but those named."""
    assert series(one) == series(other)
    assert finished(one).metrics == finished(other).metrics
    kept = {path.name for path in final_checkpoint(one).glob("*.safetensors")} - but
    assert "model.safetensors" in kept
    for name in sorted(kept):
        assert same_bits(final_checkpoint(one) / name, final_checkpoint(other) / name), name
