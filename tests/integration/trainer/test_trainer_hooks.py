"""Gradients sent in fewer bytes: as exact as promised, compressed indeed, and resumed to the bit."""

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.same_runs import interrupted
from tests.support.trainer_runs import (
    Nursery,
    blobs,
    events,
    final_checkpoint,
    log,
    prepared,
    same_bits,
    series,
    tensors,
    trained,
    workspace,
)

Json = dict[str, Any]

SPEC: Json = {
    "task": {"type": "classification"},
    "model": {"type": "mlp", "hidden_sizes": [96, 64], "dropout": 0.0},
    "data": {"source": {"type": "arrays", "dataset": "set@1"}, "split": {"validation": 0.2, "test": 0.07}},
    "optimizer": {"type": "sgd", "lr": 0.1, "momentum": 0.9},
    "training": {"max_steps": 20, "batch_size": 64, "micro_batch_size": 8},
    "logging": {"interval": {"steps": 3}},
    "checkpoint": {"interval": {"steps": 6}},
}


def _hooked(hook: Json | None, ranks: int = 2) -> Json:
    return SPEC | {
        "distributed": {"strategy": "ddp", "processes_per_node": ranks, "bucket_cap_mb": 1, "communication_hook": hook}
    }


def _weights(nursery: Nursery, home: Path, spec: Json, ranks: int) -> Any:
    trained(nursery, home, spec, ranks)
    return np.concatenate([t.flatten().numpy() for t in tensors(final_checkpoint(home) / "model.safetensors").values()])


TOLERANCE = {"fp16": 1e-3, "bf16": 1e-2}
"""Largest difference of a weight from the run of one process, after 20 steps: three and two digits of each gradient are kept."""


@pytest.fixture(scope="module")
def alone(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return _weights(nursery, tmp_path_factory.mktemp("alone") / "run", SPEC, 1)


@pytest.mark.proves("DIST-04")
@pytest.mark.parametrize("kind", TOLERANCE)
def test_sixteen_bits_are_nearly_the_same(kind: str, nursery: Nursery, alone: Any, tmp_path: Path) -> None:
    difference = np.abs(_weights(nursery, tmp_path / "run", _hooked({"type": kind}), 2) - alone).max()
    assert 1e-6 < difference < TOLERANCE[kind]


@pytest.mark.proves("DIST-04")
def test_the_wider_the_matrices_the_nearer(nursery: Nursery, alone: Any, tmp_path: Path) -> None:
    narrow = _weights(nursery, tmp_path / "narrow", _hooked({"type": "powersgd", "rank": 1, "start_step": 4}), 2)
    wide = _weights(nursery, tmp_path / "wide", _hooked({"type": "powersgd", "rank": 8, "start_step": 4}), 2)
    late = _weights(nursery, tmp_path / "late", _hooked({"type": "powersgd", "rank": 1, "start_step": 1000}), 2)
    assert np.abs(late - alone).max() < 1e-6, "nothing is compressed before the first step that is"
    off = [float(np.abs(each - alone).mean()) for each in (wide, narrow)]
    assert 1e-6 < off[0] < off[1] / 2, off


@pytest.mark.proves("DIST-04")
@pytest.mark.parametrize("hook", [{"type": "bf16"}, {"type": "powersgd", "rank": 2, "start_step": 4}], ids=["bf16", "powersgd"])
def test_a_killed_run_goes_on_with_the_bits_of_one_that_never_was(hook: Json, nursery: Nursery, tmp_path: Path) -> None:
    whole = trained(nursery, tmp_path / "whole", _hooked(hook), 2)
    broken = interrupted(nursery, prepared(tmp_path / "broken", _hooked(hook)), 2, (9, signal.SIGKILL))
    assert series(broken) == series(whole)
    for file in ("model", "optimizer"):
        assert same_bits(*(final_checkpoint(home) / f"{file}.safetensors" for home in (broken, whole)))


def test_other_ranks_owe_nothing(nursery: Nursery, tmp_path: Path) -> None:
    spec = _hooked({"type": "powersgd", "start_step": 4}) | {"training": SPEC["training"] | {"max_steps": 2000}}
    home = workspace(tmp_path / "run", spec, **blobs())
    running = nursery.start(home, 2)
    running.reached(9)
    running.signal(signal.SIGTERM)
    assert running.wait() == [75, 75], log(home)
    running = nursery.start(home, 4)
    running.reached(events(home)[-1].step + 5)
    running.signal(signal.SIGTERM)
    assert running.wait() == [75] * 4, log(home)
