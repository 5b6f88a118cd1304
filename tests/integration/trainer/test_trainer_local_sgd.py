"""Ranks that learn apart: against a simulation of them in one process, and over interruptions."""

import copy
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stoker.facts import ArrayFacts, ArrayFile, DatasetFacts
from stoker.plan import plan
from stoker.spec import JobSpec
from stoker.spec.derived.automatic import completed
from stoker.spec.model import MLP
from stoker.spec.reproducibility import Reproducibility
from tests.support.same_runs import assert_same_bits, interrupted
from tests.support.thorough import left
from tests.support.trainer_runs import (
    Nursery,
    blobs,
    final_checkpoint,
    finished,
    log,
    same_bits,
    series,
    tensors,
    trained,
    workspace,
)
from worker.trainer.model import build_model
from worker.trainer.reproducibility import build_seeds

STEPS, BATCH = 14, 20
SPEC: dict[str, Any] = {
    "task": {"type": "classification"},
    "model": {"type": "mlp", "hidden_sizes": [16]},
    # 96 training rows in file order, so that the last batch of an epoch has 16
    "data": {
        "source": {"type": "arrays", "dataset": "set@1"},
        "split": {"strategy": "contiguous", "validation": 0.2, "test": 0.0},
        "loader": {"shuffle": False},
    },
    "optimizer": {"type": "sgd", "lr": 0.1, "momentum": 0.9},
    "training": {"max_steps": STEPS, "batch_size": BATCH},
    "logging": {"interval": {"steps": 1}},
    "evaluation": {"interval": {"steps": 1}},
}
ROWS, TRAIN = 120, 96


def _spread(spec: dict[str, Any], ranks: int, **more: Any) -> dict[str, Any]:
    return spec | {"distributed": {"strategy": "local_sgd", "processes_per_node": ranks, **more}}


def _train(nursery: Nursery, home: Path, spec: dict[str, Any], ranks: int) -> Path:
    return trained(nursery, home, spec, ranks, **blobs(ROWS))


def _optimizer(kind: str, model: nn.Module) -> torch.optim.Optimizer:
    if kind == "plain":
        return torch.optim.SGD(model.parameters(), 0.1)
    if kind == "sgd":
        return torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    return torch.optim.AdamW(model.parameters(), 0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)


def _average(models: list[nn.Module]) -> None:
    for weights in zip(*(model.parameters() for model in models), strict=True):
        mean = torch.stack([w.detach() for w in weights]).mean(0)
        for weight in weights:
            weight.data = mean.clone()


def _simulated(
    kind: str, ranks: int, every: int, *, moments: bool, begin: int = 0, weights: dict[str, torch.Tensor] | None = None
) -> tuple[nn.Module, list[float], list[float]]:
    """The mean model at the end, and the training and validation losses of each step, from plain PyTorch."""
    data = {k: torch.from_numpy(v) for k, v in blobs(ROWS).items()}
    torch.manual_seed(build_seeds(Reproducibility()).weights)
    first = build_model(MLP(hidden_sizes=(16,)), (12,), 4, text=False)
    first.load_state_dict(weights or first.state_dict())
    models = [copy.deepcopy(first) for _ in range(ranks)]
    optimizers = [_optimizer(kind, model) for model in models]
    losses, judged = [], []
    per_epoch = -(-TRAIN // BATCH)
    for step in range(begin, STEPS):
        start = step % per_epoch * BATCH
        rows = torch.arange(start, min(start + BATCH, TRAIN))
        total = 0.0
        for rank, (model, optimizer) in enumerate(zip(models, optimizers, strict=True)):
            own = rows[len(rows) * rank // ranks : len(rows) * (rank + 1) // ranks]
            loss = F.cross_entropy(model(data["x"][own]), data["y"][own], reduction="sum")
            optimizer.zero_grad()
            (loss * ranks / len(rows)).backward()
            optimizer.step()
            total += loss.item()
        losses.append(total / len(rows))
        if (step + 1) % every == 0:
            _average(models)
            if moments:
                for states in zip(*([o.state[p] for p in o.param_groups[0]["params"]] for o in optimizers), strict=True):
                    for key in {"momentum_buffer", "exp_avg", "exp_avg_sq"} & states[0].keys():
                        mean = torch.stack([state[key] for state in states]).mean(0)
                        for state in states:
                            state[key].copy_(mean)
        mean_model = [copy.deepcopy(model) for model in models]
        _average(mean_model)
        with torch.no_grad():
            judged.append(F.cross_entropy(mean_model[0](data["x"][TRAIN:]), data["y"][TRAIN:]).item())
    return mean_model[0], losses, judged


@pytest.mark.parametrize(
    ("kind", "ranks", "every", "moments"), [("sgd", 2, 3, False), ("adamw", 2, 4, True), ("adamw", 4, 5, False)]
)
def test_it_is_what_separate_learners_would_do(
    kind: str, ranks: int, every: int, moments: bool, nursery: Nursery, tmp_path: Path
) -> None:
    optimizer = SPEC["optimizer"] if kind == "sgd" else {"type": "adamw", "lr": 0.01}
    spec = _spread(SPEC | {"optimizer": optimizer}, ranks, sync_every=every, average_optimizer_state=moments)
    home = _train(nursery, tmp_path / "run", spec, ranks)
    model, losses, judged = _simulated(kind, ranks, every, moments=moments)
    got = series(home)
    assert [got[step + 1, "train/loss"] for step in range(STEPS)] == pytest.approx(losses, abs=1e-5)
    assert [got[step + 1, "validation/loss"] for step in range(STEPS)] == pytest.approx(judged, abs=1e-5)
    saved = tensors(final_checkpoint(home) / "model.safetensors")
    for name, weight in model.state_dict().items():
        np.testing.assert_allclose(saved[name].numpy(), weight.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("ranks", left([2, 4], {4}))
def test_averaging_in_each_step_is_data_parallelism(ranks: int, nursery: Nursery, tmp_path: Path) -> None:
    spec = SPEC | {
        "optimizer": {"type": "sgd", "lr": 0.1},
        "training": SPEC["training"] | {"gradient_accumulation_steps": 5 // (ranks // 2) if ranks == 2 else 1},
    }
    alone = _train(nursery, tmp_path / "alone", spec, 1)
    apart = _train(nursery, tmp_path / "apart", _spread(spec, ranks, sync_every=1), ranks)
    one, other = (tensors(final_checkpoint(home) / "model.safetensors") for home in (alone, apart))
    for name in one:
        np.testing.assert_allclose(one[name].numpy(), other[name].numpy(), rtol=0, atol=1e-6)
    curves = [{key: value for key, value in series(home).items() if key[1] != "train/gradient_norm"} for home in (alone, apart)]
    assert curves[0] == pytest.approx(curves[1], abs=2e-6)  # the norm is that of rank 0's own gradients


RESUMED = SPEC | {
    "training": {"max_steps": 48, "batch_size": BATCH, "early_stopping": {"patience": 1000, "monitor": "validation/loss"}},
    "model": {"type": "mlp", "hidden_sizes": [32], "dropout": 0.2, "normalization": {"type": "batch"}},
    "data": SPEC["data"] | {"loader": {"drop_last": True}},
    "optimizer": {"type": "adamw", "lr": 0.004},
    "evaluation": {"interval": {"steps": 13}},
    "checkpoint": {"interval": {"steps": 4}},
    "logging": {"interval": {"steps": 3}},
}


@pytest.mark.parametrize(
    "more", [{"sync_every": 7}, {"sync_every": 8, "average_optimizer_state": True}, {"sync_every": 1}], ids=str
)
def test_a_resumed_run_has_the_bits_of_the_uninterrupted(more: dict[str, Any], nursery: Nursery, tmp_path: Path) -> None:
    spec = _spread(RESUMED, 2, **more)
    whole = _train(nursery, tmp_path / "whole", spec, 2)
    broken = workspace(tmp_path / "broken", spec, **blobs(ROWS))
    interrupted(nursery, broken, 2, (10, signal.SIGKILL), (14, signal.SIGTERM))
    assert_same_bits(whole, broken)


def test_judging_and_saving_move_nothing(nursery: Nursery, tmp_path: Path) -> None:
    spec = _spread(RESUMED | {"training": {"max_steps": 22, "batch_size": BATCH}}, 2, sync_every=5)
    often = _train(
        nursery,
        tmp_path / "often",
        spec | {"evaluation": {"interval": {"steps": 1}}, "checkpoint": {"interval": {"steps": 1}}},
        2,
    )
    never = _train(
        nursery,
        tmp_path / "never",
        spec | {"evaluation": {"interval": {"steps": 99}}, "checkpoint": {"interval": {"steps": 99}}},
        2,
    )
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert same_bits(final_checkpoint(often) / name, final_checkpoint(never) / name)


@pytest.mark.parametrize("ranks", [1, 4])
def test_other_ranks_begin_with_the_mean(ranks: int, nursery: Nursery, tmp_path: Path) -> None:
    spec = _spread(SPEC | {"checkpoint": {"interval": {"steps": 8}}, "optimizer": {"type": "sgd", "lr": 0.1}}, 2, sync_every=5)
    home = _train(nursery, tmp_path / "run", spec, 2)
    final_checkpoint(home).rename(tmp_path / "kept")
    mean = tensors(home / "checkpoints" / "step-00000008" / "model.safetensors")
    assert nursery.run(home, ranks) == [0] * ranks, log(home)
    assert finished(home).step == STEPS
    model, _, _ = _simulated("plain", ranks, 5, moments=False, begin=8, weights=mean)
    saved = tensors(final_checkpoint(home) / "model.safetensors")
    for name, weight in model.state_dict().items():
        np.testing.assert_allclose(saved[name].numpy(), weight.numpy(), rtol=0, atol=1e-5)


def test_what_ranks_keep_for_themselves_is_planned(nursery: Nursery, tmp_path: Path) -> None:
    wide = SPEC | {"model": {"type": "mlp", "hidden_sizes": [300, 200]}, "optimizer": {"type": "adamw"}}
    spec = _spread(wide | {"checkpoint": {"interval": {"steps": 7}}}, 2, sync_every=5)
    home = _train(nursery, tmp_path / "run", spec, 2)
    between = home / "checkpoints" / "step-00000007"
    known = DatasetFacts(name="set", version=1, digest="0" * 64, bytes=1, content=ArrayFacts(files={
        "x.npy": ArrayFile(dtype="<f4", shape=(ROWS, 12)), "y.npy": ArrayFile(dtype="<i8", shape=(ROWS,), distinct=4, counts=dict.fromkeys("0123", 30)),
    }))  # fmt: skip
    predicted = plan(completed(JobSpec.model_validate_json(json.dumps(spec)), known), known)
    assert predicted.checkpoint.total_bytes == pytest.approx(sum(f.stat().st_size for f in between.iterdir()), rel=0.01)
    apart = 2 * 3 * predicted.memory.weights_bytes  # two ranks, weights and two moments
    assert predicted.memory.fresh_bytes > predicted.memory.runtime_bytes + apart
