"""Averages of weights through the whole trainer, against plain PyTorch that does the same."""

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from tests.support.same_runs import interrupted
from tests.support.trainer_runs import (
    Nursery,
    blobs,
    events,
    final_checkpoint,
    prepared,
    same_bits,
    series,
    tensors,
    trained,
)
from worker.trainer.model.parts import BatchNormAny
from worker.trainer.predict import load

SPEC: dict[str, Any] = {
    "task": {"type": "classification"},
    "model": {"type": "mlp", "hidden_sizes": [16], "normalization": {"type": "batch"}},
    "data": {
        "source": {"type": "arrays", "dataset": "set@1"},
        "split": {"strategy": "contiguous", "validation": 0.1, "test": 0.1},
        "loader": {"shuffle": False},
    },
    "optimizer": {"type": "sgd", "lr": 0.2, "momentum": 0.9},
    "training": {"max_steps": 40, "batch_size": 42},  # 163 rows: the last of four batches has 37
    "evaluation": {"interval": {"steps": 9}, "metrics": ["accuracy"]},
    "checkpoint": {"interval": {"steps": 7}},
    "logging": {"interval": {"steps": 5}},
}
EMA = {"ema": {"decay": 0.9, "start": {"steps": 4}}}
SWA = {"swa": {"start": {"steps": 8}, "every": {"epochs": 1}, "lr": 0.05}}


def _train(nursery: Nursery, home: Path, training: dict[str, Any], ranks: int = 1, **more: Any) -> Path:
    spec = SPEC | {"training": SPEC["training"] | training} | more
    if ranks > 1:
        spec = spec | {"distributed": {"strategy": "ddp", "processes_per_node": ranks}}
    return trained(nursery, home, spec, ranks)


def _rows(begin: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
    data = blobs()
    return torch.from_numpy(data["x"][begin:end]), torch.from_numpy(data["y"][begin:end])


def _by_hand(kind: str) -> nn.Module:
    """The same job in a plain loop with PyTorch's own averages."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 16), BatchNormAny(16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = torch.optim.SGD(model.parameters(), 0.2, momentum=0.9)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9)) if kind == "ema" else AveragedModel(model)
    inputs, targets = _rows(0, 163)
    for step in range(40):
        rows = slice(step % 4 * 42, min(163, step % 4 * 42 + 42))
        optimizer.param_groups[0]["lr"] = 0.05 if kind == "swa" and step >= 8 else 0.2
        optimizer.zero_grad()
        F.cross_entropy(model(inputs[rows]), targets[rows]).backward()
        optimizer.step()
        if (step + 1 >= 4) if kind == "ema" else (step + 1 >= 8 and (step + 1 - 8) % 4 == 0):
            average.update_parameters(model)
    if kind == "swa":
        update_bn(torch.split(inputs, 42), average)
        return average.module
    model.load_state_dict({**average.module.state_dict(), **dict(model.named_buffers())})
    return model


@pytest.mark.parametrize(("kind", "training"), [("ema", EMA), ("swa", SWA)])
def test_a_run_is_judged_and_ends_with_the_average(kind: str, training: dict[str, Any], nursery: Nursery, tmp_path: Path) -> None:
    home, expected = _train(nursery, tmp_path / "run", training), _by_hand(kind).eval()
    path = final_checkpoint(home)
    kept = tensors(path / "model.safetensors")
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(kept[name], value, rtol=1e-4, atol=1e-5, msg=name)
    inputs, targets = _rows(183, 203)
    with torch.no_grad():
        truth = F.cross_entropy(expected(inputs), targets).item()
    assert series(home)[40, "test/loss"] == pytest.approx(truth, rel=1e-4)
    np.testing.assert_allclose(load(path).outputs(inputs.numpy()), expected(inputs).detach().numpy(), atol=1e-4)


@pytest.mark.parametrize("training", [EMA, SWA], ids=["ema", "swa"])
def test_a_checkpoint_on_the_way_gives_what_was_judged(training: dict[str, Any], nursery: Nursery, tmp_path: Path) -> None:
    """Weights for going on and the average for use are both in it."""
    home = _train(nursery, tmp_path / "run", training, checkpoint={"interval": {"steps": 9}})
    path, data = home / "checkpoints" / "step-00000036", blobs()
    raw, judged = tensors(path / "model.safetensors"), load(path)
    assert not torch.equal(raw["0.weight"], judged.model.state_dict()["0.weight"])
    accuracy = np.mean(judged.predict(data["x"][163:183]) == data["y"][163:183])
    assert series(home)[36, "validation/accuracy"] == pytest.approx(accuracy, abs=1e-6)


@pytest.mark.parametrize(("training", "ranks"), [(EMA, 1), (SWA, 1), (SWA, 2)])
def test_a_resumed_run_has_the_bits_of_the_uninterrupted(
    training: dict[str, Any], ranks: int, nursery: Nursery, tmp_path: Path
) -> None:
    model = SPEC["model"] | {"dropout": 0.1}
    whole = _train(nursery, tmp_path / "whole", training, ranks, model=model)
    spec = SPEC | {"training": SPEC["training"] | training, "model": model}
    if ranks > 1:
        spec = spec | {"distributed": {"strategy": "ddp", "processes_per_node": ranks}}
    broken = interrupted(nursery, prepared(tmp_path / "broken", spec), ranks, (20, signal.SIGTERM))
    for name in ("model.safetensors", "optimizer.safetensors", "parts.safetensors"):
        assert same_bits(final_checkpoint(whole) / name, final_checkpoint(broken) / name)
    assert series(whole) == series(broken)


def test_two_ranks_average_what_one_does(nursery: Nursery, tmp_path: Path) -> None:
    model = {"type": "mlp", "hidden_sizes": [16]}
    one, two = (_train(nursery, tmp_path / str(ranks), EMA, ranks, model=model) for ranks in (1, 2))
    a, b = (tensors(final_checkpoint(home) / "model.safetensors") for home in (one, two))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-6)


def test_the_best_average_is_restored(nursery: Nursery, tmp_path: Path) -> None:
    """What early stopping brings back is the average that was best, and it is what is judged at the end."""
    stopping = EMA | {"max_steps": 300, "early_stopping": {"patience": 2, "monitor": "validation/loss"}}
    home = _train(nursery, tmp_path / "run", stopping, optimizer={"type": "sgd", "lr": 1.5, "momentum": 0.9})
    assert any(getattr(event, "code", "") == "best_restored" for event in events(home))
    path = final_checkpoint(home)
    best = tensors(path / "best.safetensors")
    assert all(torch.equal(value, best[name]) for name, value in tensors(path / "model.safetensors").items())
    data, model = blobs(), load(path)
    accuracy = np.mean(model.predict(data["x"][183:]) == data["y"][183:])
    last = max(step for step, key in series(home) if key == "test/accuracy")
    assert series(home)[last, "test/accuracy"] == pytest.approx(accuracy, abs=1e-6)


def test_averaging_leaves_the_weights_alone(nursery: Nursery, tmp_path: Path) -> None:
    """A run that averages learns as one that does not."""
    plain, averaged = _train(nursery, tmp_path / "plain", {}), _train(nursery, tmp_path / "averaged", EMA)
    assert same_bits(final_checkpoint(plain) / "optimizer.safetensors", final_checkpoint(averaged) / "optimizer.safetensors")
    kept = tensors(final_checkpoint(averaged) / "parts.safetensors")
    raw = tensors(final_checkpoint(plain) / "model.safetensors")
    assert all(torch.equal(kept[f"average/{name}"], raw[name]) for name in ("0.weight", "1.bias"))
