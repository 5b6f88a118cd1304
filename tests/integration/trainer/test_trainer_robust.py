"""Adversarial training through the whole trainer: what it buys, what it leaves alone, and how it resumes."""

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.support.late import Late
from tests.support.same_runs import interrupted
from tests.support.thorough import left
from tests.support.trainer_runs import (
    Nursery,
    final_checkpoint,
    log,
    prepared,
    same_bits,
    series,
    tensors,
    trained,
    workspace,
)
from worker.trainer.predict import load

datasets = Late("sklearn.datasets")

SPEC: dict[str, Any] = {
    "task": {"type": "classification"},
    "model": {"type": "mlp", "hidden_sizes": [32]},
    "data": {"source": {"type": "arrays", "dataset": "set@1"}, "split": {"validation": 0.1, "test": 0.1}},
    "optimizer": {"type": "adamw", "lr": 0.005},
    "training": {"max_steps": 40, "batch_size": 32},
    "checkpoint": {"interval": {"steps": 7}},
    "logging": {"interval": {"steps": 5}},
}
PGD = {"method": "pgd", "epsilon": 0.2, "steps": 3}
FREE = {"method": "free", "epsilon": 0.2, "replays": 3}


def _train(nursery: Nursery, home: Path, adversarial: dict[str, Any] | None, ranks: int = 1, **more: Any) -> Path:
    spec = SPEC | {"training": SPEC["training"] | {"adversarial": adversarial}} | more
    if ranks > 1:
        spec = spec | {"distributed": {"strategy": "ddp", "processes_per_node": ranks}}
    return trained(nursery, home, spec, ranks)


def _losses(home: Path) -> list[float]:
    return [value for (_, key), value in series(home).items() if key == "train/loss"]


@pytest.mark.proves("TRAIN-11")
def test_nothing_to_move_is_plain_training_to_the_bit(nursery: Nursery, tmp_path: Path) -> None:
    model = {"type": "mlp", "hidden_sizes": [32], "dropout": 0.2}
    plain = _train(nursery, tmp_path / "plain", None, model=model)
    for name, attack in {"fgsm": {"method": "fgsm"}, "pgd": PGD, "free": FREE | {"replays": 1}}.items():
        home = _train(nursery, tmp_path / name, attack | {"epsilon": 0.0, "clip": {"low": -50.0, "high": 50.0}}, model=model)
        assert same_bits(final_checkpoint(plain) / "model.safetensors", final_checkpoint(home) / "model.safetensors"), name
        assert series(home) == series(plain)


@pytest.mark.parametrize(
    "attack", [{"method": "fgsm", "epsilon": 0.3}, PGD | {"random_start": False}, FREE], ids=lambda a: a["method"]
)
def test_two_ranks_attack_as_one(attack: dict[str, Any], nursery: Nursery, tmp_path: Path) -> None:
    if attack["method"] == "free":  # disturbances are carried by place, and two ranks have other places
        attack = attack | {"replays": 40}
        plain = {"data": SPEC["data"] | {"loader": {"shuffle": False}}}
    else:
        plain = {}
    one, two = (_train(nursery, tmp_path / str(ranks), attack, ranks, **plain) for ranks in (1, 2))
    a, b = (tensors(final_checkpoint(home) / "model.safetensors") for home in (one, two))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-4)
    clean = _train(nursery, tmp_path / "clean", None, **plain)
    assert _losses(one)[0] > 1.02 * _losses(clean)[0] or attack["method"] == "free"
    assert _losses(one) == pytest.approx(_losses(two), rel=1e-4)


@pytest.mark.parametrize(("attack", "ranks"), [(PGD, 2), (FREE, 1), *left([(PGD, 1), (FREE, 2)], [(PGD, 1), (FREE, 2)])])
def test_a_resumed_run_has_the_bits_of_the_uninterrupted(
    attack: dict[str, Any], ranks: int, nursery: Nursery, tmp_path: Path
) -> None:
    model = {"model": {"type": "mlp", "hidden_sizes": [32], "dropout": 0.1, "normalization": {"type": "batch"}}}
    spec = SPEC | {"training": SPEC["training"] | {"adversarial": attack, "max_steps": 20}} | model
    if ranks > 1:
        spec = spec | {"distributed": {"strategy": "ddp", "processes_per_node": ranks}}
    whole = trained(nursery, tmp_path / "whole", spec, ranks)
    broken = interrupted(nursery, prepared(tmp_path / "broken", spec), ranks, (11, signal.SIGTERM))
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert same_bits(final_checkpoint(whole) / name, final_checkpoint(broken) / name)
    assert series(whole) == series(broken)


def _robust(home: Path, inputs: torch.Tensor, classes: torch.Tensor, epsilon: float) -> tuple[float, float]:
    """Accuracy on clean samples and under an attack that shares nothing with the trainer's."""
    model = load(final_checkpoint(home)).model
    for param in model.parameters():
        param.requires_grad_(False)
    torch.manual_seed(7)
    moved = inputs + epsilon * (2 * torch.rand_like(inputs) - 1)
    for _ in range(20):
        moved = moved.detach().requires_grad_()
        F.cross_entropy(model(moved), classes).backward()
        assert moved.grad is not None
        moved = moved.detach() + epsilon / 4 * moved.grad.sign()
        moved = torch.max(torch.min(moved, inputs + epsilon), inputs - epsilon).clamp(0, 1)
    clean = (model(inputs).argmax(1) == classes).float().mean().item()
    return clean, (model(moved).argmax(1) == classes).float().mean().item()


@pytest.mark.proves("TRAIN-11")
def test_adversarial_training_withstands_an_attack_that_plain_training_does_not(nursery: Nursery, tmp_path: Path) -> None:
    digits = datasets.load_digits()
    x, y = (digits.data / 16).astype(np.float32), digits.target
    held = np.arange(len(y)) % 5 == 0
    inputs, classes = torch.from_numpy(x[held]), torch.from_numpy(y[held])
    room = {"epsilon": 0.15, "clip": {"low": 0.0, "high": 1.0}}
    attacks: dict[str, dict[str, Any] | None] = {
        "plain": None,
        "fgsm": {"method": "fgsm"} | room,
        "pgd": {"method": "pgd", "steps": 5} | room,
        "free": {"method": "free", "replays": 4} | room,
    }
    found = {}
    for name, attack in attacks.items():
        spec = SPEC | {"training": {"max_steps": 300, "batch_size": 128, "adversarial": attack}, "checkpoint": {}}
        home = workspace(tmp_path / name, spec, x=x[~held], y=y[~held])
        assert nursery.run(home) == [0], log(home)
        found[name] = _robust(home, inputs, classes, 0.15)
    clean, attacked = found["plain"]
    assert clean > 0.9
    for name in ("fgsm", "pgd", "free"):
        assert found[name][1] > attacked + 0.15, found
        assert found[name][0] > 0.85, found
