"""Runs that must compute the same: what one process makes of a job, and how another way to run it is compared with that."""

import fcntl
import hashlib
import json
import shutil
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stoker.events import Started
from tests.support.trainer_runs import Nursery, events, final_checkpoint, finished, log, same_bits, series, tensors, trained


class Alone:
    """Uninterrupted runs that others are compared with: the test process that needs one first makes it, the others find it.

    Their homes are read and never written to.
    """

    def __init__(self, nursery: Nursery, root: Path) -> None:
        self._nursery, self._root = nursery, root
        root.mkdir(parents=True, exist_ok=True)

    def __call__(self, spec: Mapping[str, Any], ranks: int = 1, **arrays: np.ndarray[Any, Any]) -> Path:
        """The home of the run of a job on its data, which is what `prepared` gives where no arrays are named."""
        home = self._root / _digest(spec, ranks, arrays)
        with home.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (home / "whole").exists():
                shutil.rmtree(home, ignore_errors=True)
                trained(self._nursery, home, spec, ranks, **arrays)
                (home / "whole").touch()
        return home


def _digest(spec: Mapping[str, Any], ranks: int, arrays: Mapping[str, np.ndarray[Any, Any]]) -> str:
    found = hashlib.sha256(json.dumps([spec, ranks]).encode())
    for name, values in sorted(arrays.items()):
        found.update(f"{name} {values.dtype} {values.shape}".encode() + values.tobytes())
    return found.hexdigest()[:16]


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


STOP = """
import os, signal, time
from torch.optim.optimizer import register_optimizer_step_post_hook

made = []

def stop(*_):
    made.append(1)
    if len(made) < {updates}:
        return
    waited = 0
    while {kill} and not [*home.glob("checkpoints/step-*/manifest.json")]:
        # Killed before there is a checkpoint, it would begin anew. Ranks finish one together, after their next step.
        if waited == 200:
            return
        waited += 1
        time.sleep(0.001)
    os.kill(os.getpid(), {number})

register_optimizer_step_post_hook(stop)
"""
"""Stops a rank when its optimizer has moved the weights so often; a rank that is killed, when there is a checkpoint then."""


def interrupted(nursery: Nursery, home: Path, ranks: int, *stops: tuple[int, signal.Signals], inject: str = "") -> Path:
    """A run stopped after a number of updates of each attempt, by a signal to every rank, and then resumed to its end.

    Moments that are exact need few steps; `test_trainer_resume` kills at any moment.
    """
    for updates, how in stops:
        stop = STOP.format(updates=updates, number=int(how), kill=how is signal.SIGKILL)
        codes = nursery.run(home, ranks, inject + stop)
        assert 0 not in codes, "it ended before it was stopped"
        assert codes == [75] * ranks or how is signal.SIGKILL, log(home)
    assert nursery.run(home, ranks, inject) == [0] * ranks, log(home)
    starts = [event.step for event in events(home) if isinstance(event, Started)]
    assert len(starts) == len(stops) + 1
    assert all(step > 0 for step in starts[1:]), f"an attempt began anew: {starts}"
    return home


def killed_twice(nursery: Nursery, home: Path, ranks: int, steps: Iterable[int], inject: str = "") -> None:
    """A run that is killed about the first of two steps, asked to stop about the second, and resumed to its end after both."""
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
