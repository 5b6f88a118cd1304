"""Batch size, epochs, accumulation and seeds, counted in the weights of a model that remembers each sample on its own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stoker.events import Progress
from tests.support.trainer_runs import Nursery, events, final_checkpoint, log, same_bits, series, tensors, workspace

COUNT, LR = 48, 1e-4
HOLD = {"validation": 0.0, "test": 0.0}
LINEAR: dict[str, Any] = {
    "task": {"type": "regression"},
    "model": {"type": "mlp", "hidden_sizes": [], "bias": False, "init": {"type": "normal", "std": 1e-9}},
    "data": {"source": {"type": "arrays", "dataset": "set@1"}, "split": HOLD},
    "optimizer": {"type": "sgd", "lr": LR},
    "loss": {"type": "mse"},
    "evaluation": {"metrics": []},
    "logging": {"interval": {"steps": 1}},
}
"""Sample i is the i-th unit vector, so column i of the only weight moves when it is seen, and only then."""


def _spec(ranks: int, **training: Any) -> dict[str, Any]:
    spread = {"distributed": {"strategy": "ddp", "processes_per_node": ranks}} if ranks > 1 else {}
    return LINEAR | {"training": training} | spread


def _run(nursery: Nursery, home: Path, spec: dict[str, Any], ranks: int, y: np.ndarray[Any, Any]) -> Path:
    workspace(home, spec, x=np.eye(COUNT, dtype=np.float32), y=y)
    assert nursery.run(home, ranks) == [0] * ranks, log(home)
    return home


def _moved(home: Path) -> np.ndarray[Any, Any]:
    (weight,) = tensors(final_checkpoint(home) / "model.safetensors").values()
    return np.asarray(weight.numpy()[0], np.float64)


@pytest.mark.proves("TRAIN-01", "TRAIN-02")
@pytest.mark.parametrize(("ranks", "micro"), [(1, 16), (1, 4), (2, 8), (2, 2), (4, 1)])
def test_each_step_takes_the_batch_and_each_epoch_every_sample_once(
    ranks: int, micro: int, nursery: Nursery, tmp_path: Path
) -> None:
    y = np.linspace(1.0, 2.0, COUNT, dtype=np.float32)[:, None]
    home = _run(nursery, tmp_path / "run", _spec(ranks, epochs=3, batch_size=16, micro_batch_size=micro), ranks, y)
    once = LR * 2 * y[:, 0] / 16  # one look at a sample, in a batch of 16: the mean of squares, from zero
    seen = _moved(home) / once
    np.testing.assert_allclose(seen, 3.0, rtol=1e-3)
    taken = [event.samples for event in events(home) if isinstance(event, Progress)]
    assert taken == list(range(16, 3 * COUNT + 1, 16))


@pytest.mark.proves("TRAIN-03")
def test_a_ragged_last_batch_weighs_its_own_samples(nursery: Nursery, tmp_path: Path) -> None:
    """48 = 20 + 20 + 8: accumulated in micro-batches of 3 on two ranks, the mean of the last batch is over 8."""
    y = np.ones((COUNT, 1), np.float32)
    home = _run(nursery, tmp_path / "run", _spec(2, epochs=1, batch_size=20, micro_batch_size=5), 2, y)
    looks = np.sort(_moved(home) / (LR * 2))
    np.testing.assert_allclose(looks, np.sort([1 / 20] * 40 + [1 / 8] * 8), rtol=1e-3)


@pytest.mark.proves("TRAIN-09")
def test_a_seed_is_a_run(nursery: Nursery, tmp_path: Path) -> None:
    y = np.linspace(1.0, 2.0, COUNT, dtype=np.float32)[:, None]
    spec = _spec(1, epochs=2, batch_size=10)
    again = {"one": spec, "two": spec, "other": spec | {"reproducibility": {"seed": 5}}}
    homes = {name: _run(nursery, tmp_path / name, case, 1, y) for name, case in again.items()}
    files = {name: final_checkpoint(home) / "model.safetensors" for name, home in homes.items()}
    assert same_bits(files["one"], files["two"])
    assert series(homes["one"]) == series(homes["two"])
    assert not same_bits(files["one"], files["other"])


@pytest.mark.proves("TRAIN-09")
def test_the_order_of_samples_is_that_of_the_data_seed_for_any_number_of_ranks(nursery: Nursery, tmp_path: Path) -> None:
    """With one step, the samples that moved are those of the first batch."""
    y = np.ones((COUNT, 1), np.float32)
    first: dict[tuple[int, int], tuple[int, ...]] = {}
    for ranks, seed in ((1, 3), (2, 3), (4, 3), (1, 4)):
        spec = _spec(ranks, max_steps=1, batch_size=12) | {"reproducibility": {"seed": 9, "data_seed": seed}}
        home = _run(nursery, tmp_path / f"{ranks}-{seed}", spec, ranks, y)
        first[ranks, seed] = tuple(np.flatnonzero(_moved(home) > 1e-6).tolist())
    assert len(first[1, 3]) == 12
    assert first[1, 3] == first[2, 3] == first[4, 3]
    assert first[1, 4] != first[1, 3]
