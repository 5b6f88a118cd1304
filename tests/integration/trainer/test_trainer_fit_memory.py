"""A step that does not fit in memory is made again in smaller micro-batches: same samples, same gradient, on every rank."""

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stoker.events import Notice
from tests.support.same_runs import Alone, interrupted
from tests.support.trainer_runs import (
    Nursery,
    blobs,
    events,
    final_checkpoint,
    finished,
    log,
    same_bits,
    series,
    tensors,
    workspace,
)

SPEC: dict[str, Any] = {
    "task": {"type": "classification"},
    "model": {"type": "mlp", "hidden_sizes": [32]},
    "data": {"source": {"type": "arrays", "dataset": "set@1"}, "split": {"validation": 0.2, "test": 0.07}},
    "optimizer": {"type": "sgd", "lr": 0.1, "momentum": 0.9},
    # 148 training samples: the last batch of an epoch has 20
    "training": {"epochs": 4, "batch_size": 64, "dynamic_batch": {"mode": "fit_memory"}},
    "logging": {"interval": {"steps": 1}},
}
NO_ROOM = """
import os, torch
from worker.trainer.runtime.objective import Objective
whole, calls = Objective.forward, [0]

def forward(self, inputs, targets):
    # What is left of memory after some passes, on the last rank alone, holds so many samples and no more.
    calls[0] += self.training
    if int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1 and calls[0] > {after} and inputs.shape[0] > {room}:
        raise {error}
    return whole(self, inputs, targets)

Objective.forward = forward
"""
GPU, HOST = (
    'torch.OutOfMemoryError("CUDA out of memory")',
    'RuntimeError("[enforce fail] DefaultCPUAllocator: can\'t allocate memory")',
)


def _run(nursery: Nursery, home: Path, spec: dict[str, Any], ranks: int, inject: str = "", code: int = 0) -> Path:
    if ranks > 1:
        spec = spec | {"distributed": {"strategy": "ddp", "processes_per_node": ranks}}
    workspace(home, spec, **blobs())
    assert nursery.run(home, ranks, inject) == [code] * ranks, log(home)
    return home


def halvings(home: Path) -> list[tuple[int, int]]:
    told = [event for event in events(home) if isinstance(event, Notice) and event.code == "micro_batch_halved"]
    return [(notice.data["before"], notice.data["micro_batch_size"]) for notice in told]


@pytest.mark.proves("TRAIN-10")
@pytest.mark.parametrize(("ranks", "after", "error"), [(1, 0, HOST), (1, 7, GPU), (2, 5, HOST), (4, 3, GPU)])
def test_global_batch_and_gradient_stay_what_they_are(
    ranks: int, after: int, error: str, nursery: Nursery, alone: Alone, tmp_path: Path
) -> None:
    plain = SPEC | {"training": {k: v for k, v in SPEC["training"].items() if k != "dynamic_batch"}}
    whole = alone(plain)
    home = _run(nursery, tmp_path / "run", SPEC, ranks, NO_ROOM.format(after=after, room=5, error=error))
    micro = 64 // ranks
    expected = [(micro // 2**n, micro // 2 ** (n + 1)) for n in range(4) if micro // 2**n > 5]
    assert halvings(home) == expected, "once each, not in every step"
    a, b = (tensors(final_checkpoint(run) / "model.safetensors") for run in (whole, home))
    for name in a:
        np.testing.assert_allclose(a[name].numpy(), b[name].numpy(), rtol=0, atol=1e-6)
    c, d = series(whole), series(home)
    keys = [key for key in c if not key[1].startswith("train/memory")]
    assert c.keys() == d.keys()
    assert [d[key] for key in keys] == pytest.approx([c[key] for key in keys], abs=3e-6)


def test_without_a_lack_of_memory_two_ranks_learn_as_ddp_does(nursery: Nursery, tmp_path: Path) -> None:
    plain = SPEC | {"training": {k: v for k, v in SPEC["training"].items() if k != "dynamic_batch"}}
    whole, home = _run(nursery, tmp_path / "whole", plain, 2), _run(nursery, tmp_path / "run", SPEC, 2)
    a, b = (tensors(final_checkpoint(run) / "model.safetensors") for run in (whole, home))
    for name in a:
        np.testing.assert_allclose(a[name].numpy(), b[name].numpy(), rtol=0, atol=1e-6)
    assert halvings(home) == []


def test_dropout_of_a_step_that_is_made_again_is_not_drawn_twice(nursery: Nursery, tmp_path: Path) -> None:
    """With micro-batches of the size that fits from the start, every random number is the same."""
    spec = SPEC | {"model": {"type": "mlp", "hidden_sizes": [32], "dropout": 0.3}}
    small = spec | {"training": SPEC["training"] | {"micro_batch_size": 32}}
    whole = _run(nursery, tmp_path / "whole", small, 1)
    home = _run(nursery, tmp_path / "run", spec, 1, NO_ROOM.format(after=0, room=40, error=HOST))
    assert halvings(home) == [(64, 32)]
    assert same_bits(*(final_checkpoint(run) / "model.safetensors" for run in (whole, home)))


def test_what_fits_is_remembered(nursery: Nursery, tmp_path: Path) -> None:
    spec = SPEC | {"training": SPEC["training"] | {"epochs": 8}, "checkpoint": {"interval": {"steps": 7}}}
    inject = NO_ROOM.format(after=0, room=10, error=HOST)
    whole = _run(nursery, tmp_path / "whole", spec, 2, inject)
    home = workspace(tmp_path / "stopped", spec | {"distributed": {"strategy": "ddp", "processes_per_node": 2}}, **blobs())
    interrupted(nursery, home, 2, (9, signal.SIGTERM), inject=inject)
    assert halvings(home) == [(32, 16), (16, 8)], "not found out a second time"
    assert same_bits(*(final_checkpoint(run) / "model.safetensors" for run in (whole, home)))


@pytest.mark.parametrize("ranks", [1, 2])
def test_what_does_not_fit_at_all_ends_the_attempt_on_every_rank(ranks: int, nursery: Nursery, tmp_path: Path) -> None:
    spec = SPEC | {"training": SPEC["training"] | {"dynamic_batch": {"mode": "fit_memory", "min_micro": 8}}}
    home = _run(nursery, tmp_path / "run", spec, ranks, NO_ROOM.format(after=3, room=5, error=HOST), code=1)
    assert finished(home).reason == "host_oom"
    assert "a micro-batch of 8 does not fit in memory" in finished(home).message
    assert {finished(home, rank).reason for rank in range(ranks)} == {"host_oom"}
