"""Batches of changing size, against the same training written down again in plain torch."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stoker.events import Notice, Progress, Started
from tests.support.same_runs import interrupted
from tests.support.trainer_runs import Nursery, events, final_checkpoint, finished, log, same_bits, series, tensors, workspace

ROWS, FEATURES = 50, 5
SPEC: dict[str, Any] = {
    "task": {"type": "regression"},
    "model": {"type": "mlp", "hidden_sizes": []},
    "data": {
        "source": {"type": "arrays", "dataset": "set@1"},
        "split": {"strategy": "contiguous", "validation": 0.2, "test": 0},
        "loader": {"shuffle": False},
    },
    "optimizer": {"type": "sgd", "lr": 0.05, "momentum": 0.9},
    "logging": {"interval": {"steps": 1}},
    "checkpoint": {"interval": {"epochs": 1}},
    "evaluation": {"interval": {"epochs": 1}},
}
SCHEDULE = {
    "mode": "schedule",
    # 40 samples train: steps of 8, from the third one of 16 in the middle of an epoch, from the third epoch of 7
    "milestones": [{"after": {"steps": 2}, "batch_size": 16}, {"after": {"epochs": 2}, "batch_size": 7}],
}
EACH = [8, 8, 16, 8, 16, 16, 8, *[7] * 5, 5, *[7] * 5, 5]
"""Samples of each step of four epochs."""


def rows() -> dict[str, np.ndarray[Any, Any]]:
    draw = np.random.default_rng(5)
    x = draw.normal(size=(ROWS, FEATURES)).astype(np.float32)
    return {"x": x, "y": (x @ draw.normal(size=(FEATURES, 1)) + 0.1 * draw.normal(size=(ROWS, 1))).astype(np.float32)}


def _run(nursery: Nursery, home: Path, spec: dict[str, Any], ranks: int = 1) -> Path:
    if ranks > 1:
        spec = spec | {"distributed": {"strategy": "ddp", "processes_per_node": ranks}}
    workspace(home, spec, **rows())
    assert nursery.run(home, ranks) == [0] * ranks, log(home)
    return home


def _weights(path: Path) -> list[torch.Tensor]:
    found = tensors(path / "model.safetensors")
    return [next(value for value in found.values() if value.ndim == ndim).clone() for ndim in (2, 1)]


def _simulated(start: list[torch.Tensor], sizes: list[int]) -> tuple[list[torch.Tensor], list[float]]:
    """Weights after steps of these sizes through the first 40 rows, over and over; the loss of each."""
    params, data, at, losses = [value.clone().requires_grad_() for value in start], rows(), 0, []
    optimizer = torch.optim.SGD(params, lr=0.05, momentum=0.9)
    for size in sizes:
        x, y = (torch.from_numpy(data[name][at : at + size]) for name in "xy")
        assert len(x) == size
        loss = torch.nn.functional.mse_loss(x @ params[0].T + params[1], y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        at = (at + size) % 40
    return [param.detach() for param in params], losses


def _start(nursery: Nursery, home: Path) -> list[torch.Tensor]:
    spec = SPEC | {"training": {"max_steps": 1, "batch_size": 8}, "debug": {"nan_policy": {"type": "rollback"}}}
    return _weights(_run(nursery, home, spec) / "checkpoints/step-00000000")


@pytest.mark.proves("TRAIN-10")
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_schedule_of_batch_sizes_sees_each_sample_once_per_epoch(ranks: int, nursery: Nursery, tmp_path: Path) -> None:
    spec = SPEC | {"training": {"epochs": 4, "batch_size": 8, "dynamic_batch": SCHEDULE}}
    home = _run(nursery, tmp_path / "run", spec, ranks)
    weights, losses = _simulated(_start(nursery, tmp_path / "start"), EACH)
    for mine, expected in zip(_weights(final_checkpoint(home)), weights, strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=2e-6)
    got = series(home)
    assert [got[step, "train/loss"] for step in range(1, len(EACH) + 1)] == pytest.approx(losses, rel=1e-4)
    assert next(event for event in events(home) if isinstance(event, Started)).total_steps == finished(home).step == len(EACH)
    progress = {event.step: event for event in events(home) if isinstance(event, Progress)}
    assert [progress[step].samples for step in (2, 3, 4, 7, 13)] == [16, 32, 40, 80, 120]
    assert [progress[step].epoch for step in (2, 3, 4, 7, 13, 19)] == pytest.approx([0.4, 0.8, 1, 2, 3, 4])
    assert sorted(step for step, key in got if key == "validation/loss") == [4, 7, 13, 19], "epochs are where they are"
    saved = {int(path.name[5:]) for path in (home / "checkpoints").glob("step-*")}
    assert saved <= {4, 7, 13, 19}


def test_a_run_of_changing_batches_is_resumed_to_the_bit(nursery: Nursery, tmp_path: Path) -> None:
    milestones = [{"after": {"epochs": 8}, "batch_size": 24}, {"after": {"steps": 60}, "batch_size": 5}]
    training = {"epochs": 20, "batch_size": 8, "dynamic_batch": {"mode": "schedule", "milestones": milestones}}
    spec = SPEC | {"training": training, "schedule": {"type": "cosine"}, "checkpoint": {"interval": {"steps": 20}}}
    spec |= {"evaluation": {"interval": {"epochs": 4}}, "logging": {"interval": {"steps": 3}}}
    whole = _run(nursery, tmp_path / "whole", spec)
    home = workspace(tmp_path / "stopped", spec, **rows())
    interrupted(nursery, home, 1, (53, signal.SIGTERM))
    for name in ("model", "optimizer"):
        assert same_bits(*(final_checkpoint(run) / f"{name}.safetensors" for run in (whole, home)))
    assert finished(whole).step == finished(home).step == 8 * 5 + 10 * 2 + 2 * 8


PLATEAU = {"mode": "on_plateau", "factor": 2.5, "patience": 2, "max": 30}


def _grown(home: Path) -> list[tuple[int, int]]:
    told = [event for event in events(home) if isinstance(event, Notice) and event.code == "batch_grown"]
    return [(notice.step or 0, notice.data["batch_size"]) for notice in told]


@pytest.mark.proves("TRAIN-10")
@pytest.mark.parametrize("ranks", [1, 2])
def test_batches_grow_when_validation_stalls(ranks: int, nursery: Nursery, tmp_path: Path) -> None:
    spec = SPEC | {"training": {"epochs": 40, "batch_size": 8, "dynamic_batch": PLATEAU}}
    home = _run(nursery, tmp_path / "run", spec, ranks)
    values = {step: value for (step, key), value in sorted(series(home).items()) if key == "validation/loss"}
    best, stale, size, expected = np.inf, 0, 8, list[tuple[int, int]]()
    for step, value in list(values.items())[:-1]:  # nothing follows the last one
        best, stale = (value, 0) if value < best else (best, stale + 1)
        if stale >= 2 and size < 30:
            size, stale = min(30, int(size * 2.5)), 0
            expected.append((step, size))
    assert [size for _, size in expected] == [20, 30], "the simulation has something to do"
    assert _grown(home) == expected
    sizes = list[int]()
    for step in range(finished(home).step):
        now = next((size for at, size in reversed(expected) if at <= step), 8)
        sizes.append(min(now, 40 - sum(sizes) % 40))
    assert sum(sizes) == 40 * 40, "forty epochs, whatever the number of steps"
    weights, _ = _simulated(_start(nursery, tmp_path / "start"), sizes)
    for mine, reference in zip(_weights(final_checkpoint(home)), weights, strict=True):
        torch.testing.assert_close(mine, reference, rtol=0, atol=2e-6)


def test_what_grew_is_remembered(nursery: Nursery, tmp_path: Path) -> None:
    spec = SPEC | {
        "training": {"epochs": 40, "batch_size": 8, "dynamic_batch": PLATEAU},
        "checkpoint": {"interval": {"steps": 20}},
    }
    whole = _run(nursery, tmp_path / "whole", spec)
    home = workspace(tmp_path / "stopped", spec, **rows())
    first, second = (step for step, _ in _grown(whole))
    interrupted(nursery, home, 1, ((first + second) // 2, signal.SIGTERM))
    assert _grown(home) == _grown(whole)
    for name in ("model", "optimizer"):
        assert same_bits(*(final_checkpoint(run) / f"{name}.safetensors" for run in (whole, home)))
    state = json.loads((final_checkpoint(home) / "state.json").read_text())
    assert [segment[3] for segment in state["parts"]["dynamic_batch"]["segments"]] == [8, 20, 30]
