"""How a run ends when something is wrong: the reason, the exit code, and a message that says what to do."""

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.trainer_runs import Nursery, blobs, events, final_checkpoint, finished, log, same_bits, series, workspace

SPEC: dict[str, Any] = {
    "task": {"type": "classification"},
    "model": {"type": "mlp", "hidden_sizes": [16]},
    "data": {"source": {"type": "arrays", "dataset": "set@1"}, "split": {"validation": 0.2}},
    "training": {"epochs": 2, "batch_size": 32},
}


def _end(nursery: Nursery, home: Path, spec: dict[str, Any], code: int, ranks: int = 1, **data: Any) -> tuple[str, str]:
    workspace(home, spec, **(data or blobs()))
    assert nursery.run(home, ranks) == [code] * ranks, log(home)
    return finished(home).reason, finished(home).message


def test_nan_stops_the_run_and_saves_nothing_of_it(nursery: Nursery, tmp_path: Path) -> None:
    spec = SPEC | {"optimizer": {"type": "sgd", "lr": 1e12}, "training": {"max_steps": 500, "batch_size": 32}}
    spec |= {"checkpoint": {"interval": {"steps": 1}}, "logging": {"interval": {"steps": 100}}}
    reason, message = _end(nursery, tmp_path / "run", spec, 3)
    assert reason == "nan_loss"
    assert "optimizer.lr" in message
    assert finished(tmp_path / "run").step < 100, "found when it would be saved, not a hundred steps later"


def test_all_ranks_stop_when_the_loss_diverges(nursery: Nursery, tmp_path: Path) -> None:
    spec = SPEC | {"optimizer": {"type": "sgd", "lr": 1e12}, "distributed": {"strategy": "ddp"}}
    assert _end(nursery, tmp_path / "run", spec | {"training": {"max_steps": 500, "batch_size": 32}}, 3, 2)[0] == "nan_loss"


def test_data_that_does_not_fit_is_named(nursery: Nursery, tmp_path: Path) -> None:
    data = blobs()
    data["x"][7, 3] = np.nan
    reason, message = _end(nursery, tmp_path / "nan", SPEC, 2, **data)
    assert (reason, "x.npy: sample 7" in message) == ("data_error", True)
    reason, message = _end(nursery, tmp_path / "few", SPEC, 2, x=blobs()["x"], y=blobs()["y"][:50])
    assert (reason, "50" in message) == ("data_error", True)
    reason, message = _end(nursery, tmp_path / "classes", SPEC | {"task": {"type": "classification", "num_classes": 3}}, 2)
    assert (reason, "num_classes" in message) == ("data_error", True)
    reason, message = _end(nursery, tmp_path / "pickle", SPEC, 2, x=np.array([{}, {}]), y=np.array([0, 1]))
    assert (reason, "x.npy" in message) == ("data_error", True)


def test_spec_that_cannot_be_built_is_named(nursery: Nursery, tmp_path: Path) -> None:
    conv = {"type": "layers", "layers": [{"type": "conv", "channels": 4}]}
    assert _end(nursery, tmp_path / "conv", SPEC | {"model": conv}, 2) == (
        "spec_error",
        "model.layers[0]: conv needs (channels, length) or (channels, height, width), but gets (12,); move it before flatten, or remove it",
    )
    reason, message = _end(nursery, tmp_path / "unknown", SPEC | {"nonsense": 1}, 2)
    assert (reason, "nonsense" in message) == ("spec_error", True)


def test_a_dead_neighbour_is_not_the_users_fault(nursery: Nursery, tmp_path: Path) -> None:
    spec = SPEC | {"distributed": {"strategy": "ddp"}, "training": {"epochs": 100_000, "batch_size": 32}}
    home = workspace(tmp_path / "run", spec, **blobs())
    running = nursery.start(home, 2)
    running.reached(20)
    running.signal(signal.SIGKILL, [1])
    assert running.wait() == [1, -9], log(home)
    assert finished(home).reason == "rank_lost"


@pytest.mark.proves("REG-06")
@pytest.mark.parametrize("ranks", [1, 2])
def test_early_stopping_ends_with_the_best_weights(ranks: int, nursery: Nursery, tmp_path: Path) -> None:
    spec = SPEC | {
        "model": {"type": "mlp", "hidden_sizes": [64, 64]},
        "optimizer": {"type": "adamw", "lr": 0.02},
        "training": {"epochs": 500, "batch_size": 32, "early_stopping": {"patience": 4}},
        "distributed": {"strategy": "ddp" if ranks > 1 else "single"},
        "checkpoint": {"interval": {"epochs": 1}, "keep_best": 1, "monitor": "validation/loss"},
    }
    home = workspace(tmp_path / "run", spec, **blobs())
    assert nursery.run(home, ranks) == [0] * ranks, log(home)
    values = {step: value for (step, key), value in series(home).items() if key == "validation/loss"}
    best = min(values, key=lambda step: values[step])
    assert finished(home).reason == "early_stopped"
    assert list(values).index(best) == len(values) - 5, "four evaluations without improvement follow the best"
    assert finished(home).metrics["validation/loss"] == values[best]
    assert [e.step for e in events(home) if e.type == "notice"] == [best]
    assert same_bits(home / f"checkpoints/step-{best:08d}/model.safetensors", final_checkpoint(home) / "model.safetensors")
    assert len({finished(home, rank).step for rank in range(ranks)}) == 1


@pytest.mark.proves("TRAIN-02")
@pytest.mark.parametrize(
    ("length", "steps"),
    [({"epochs": 3}, 18), ({"max_steps": 7}, 7)],
)
def test_it_runs_as_long_as_it_was_told(length: dict[str, int], steps: int, nursery: Nursery, tmp_path: Path) -> None:
    home = workspace(tmp_path / "run", SPEC | {"training": {**length, "batch_size": 32}}, **blobs())
    assert nursery.run(home) == [0], log(home)
    assert (finished(home).step, finished(home).reason) == (steps, "completed")


@pytest.mark.proves("TRAIN-02")
def test_time_ends_a_run(nursery: Nursery, tmp_path: Path) -> None:
    spec = SPEC | {"training": {"max_seconds": 0.3, "batch_size": 32}, "evaluation": {"interval": {"seconds": 0.1}}}
    home = workspace(tmp_path / "run", spec, **blobs())
    assert nursery.run(home) == [0], log(home)
    assert finished(home).reason == "completed"
    assert len([1 for _, key in series(home) if key == "validation/loss"]) >= 2
