"""Runs that go on from another job's checkpoint with another schedule and length have the bits of the run planned like that."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.trainer_runs import Nursery, blobs, final_checkpoint, finished, log, same_bits, series, workspace

SPEC: dict[str, Any] = {
    "task": {"type": "classification"},
    "model": {"type": "mlp", "hidden_sizes": [24], "dropout": 0.1},
    "data": {"source": {"type": "arrays", "dataset": "set@1"}, "split": {"validation": 0.2, "test": 0.1}},
    "optimizer": {"type": "adamw", "lr": 0.004},
    "evaluation": {"interval": {"steps": 13}},
    "logging": {"interval": {"steps": 3}},
    "checkpoint": {"interval": {"steps": 7}},
}
SOURCE = "job_" + "0" * 26


def _spec(steps: int, **more: Any) -> dict[str, Any]:
    return SPEC | {"training": {"max_steps": steps, "batch_size": 32}} | more


def _wsd(decay: int) -> dict[str, Any]:
    return {"schedule": {"type": "wsd", "warmup_steps": 5, "decay_steps": decay}}


def _run(nursery: Nursery, home: Path, spec: dict[str, Any]) -> Path:
    workspace(home, spec, **blobs())
    assert nursery.run(home) == [0], log(home)
    return home


def _continued(nursery: Nursery, home: Path, spec: dict[str, Any], source: Path, step: int) -> Path:
    """As the agent leaves a workspace whose job goes on from another one's checkpoint."""
    ref = {"resume_from": {"job": SOURCE, "checkpoint": step}}
    workspace(home, spec | {"checkpoint": SPEC["checkpoint"] | ref}, **blobs())
    name = f"step-{step:08d}"
    shutil.copytree(source / "checkpoints" / name, home / "checkpoints" / name)
    assert nursery.run(home) == [0], log(home)
    return home


def test_a_run_goes_on_from_the_stable_stretch_of_a_shorter_one(nursery: Nursery, tmp_path: Path) -> None:
    short = _run(nursery, tmp_path / "short", _spec(32, **_wsd(6)))
    whole = _run(nursery, tmp_path / "whole", _spec(60, **_wsd(15)))
    on = _continued(nursery, tmp_path / "on", _spec(60, **_wsd(15)), short, 21)
    assert finished(on).step == 60
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert same_bits(final_checkpoint(whole) / name, final_checkpoint(on) / name)
    rest = {key: value for key, value in series(whole).items() if key[0] > 21}
    assert series(on) == rest


@pytest.mark.parametrize("training", [{}, {"ema": {"decay": 0.9}}], ids=["plain", "ema"])
def test_a_run_goes_on_from_where_another_ended(training: dict[str, Any], nursery: Nursery, tmp_path: Path) -> None:
    """What was saved as finished is not: also where the model was saved as its average."""
    constant = {"schedule": {"type": "constant"}}
    first, whole = (_spec(steps, **constant) for steps in (20, 45))
    for spec in (first, whole):
        spec["training"] = spec["training"] | training
    short = _run(nursery, tmp_path / "short", first)
    at_once = _run(nursery, tmp_path / "whole", whole)
    on = _continued(nursery, tmp_path / "on", whole, short, 20)
    assert finished(on).reason == "completed"
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert same_bits(final_checkpoint(at_once) / name, final_checkpoint(on) / name)


def test_a_run_that_stopped_early_may_go_on(nursery: Nursery, tmp_path: Path) -> None:
    stopping = {"early_stopping": {"patience": 1, "min_delta": 10.0, "restore_best": False}}
    spec = _spec(200)
    short = _run(nursery, tmp_path / "short", spec | {"training": spec["training"] | stopping})
    assert finished(short).reason == "early_stopped"
    step = finished(short).step
    on = _continued(nursery, tmp_path / "on", _spec(60), short, step)
    assert (finished(on).reason, finished(on).step) == ("completed", 60)
