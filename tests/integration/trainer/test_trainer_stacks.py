"""Stacks of layers, convolutional networks and shared weights through the whole program."""

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.late import Late
from tests.support.same_runs import interrupted
from tests.support.trainer_runs import (
    Nursery,
    blobs,
    final_checkpoint,
    finished,
    log,
    same_bits,
    series,
    tensors,
    workspace,
)
from worker.trainer.predict import load

special = Late("scipy.special")

BASE: dict[str, Any] = {
    "task": {"type": "classification"},
    "data": {"source": {"type": "arrays", "dataset": "set@1"}, "split": {"validation": 0.2, "test": 0.1}},
    "training": {"max_steps": 16, "batch_size": 32},
    "logging": {"interval": {"steps": 3}},
    "checkpoint": {"interval": {"steps": 7}},
}
STACK = BASE | {
    "model": {
        "type": "layers",
        "layers": [
            {"type": "reshape", "shape": [2, 6]},
            {"type": "conv", "channels": 8, "padding": "same", "kernel_size": 4},
            {"type": "norm", "kind": "group"},
            {"type": "activation", "kind": "mish"},
            {"type": "residual", "layers": [{"type": "conv", "channels": 6, "stride": 2, "padding": 1}], "shortcut": [{"type": "pool"}, {"type": "conv", "channels": 6, "kernel_size": 1}]},
            {"type": "rearrange", "to": "steps"},
            {"type": "attention", "num_heads": 2, "dropout": 0.1},
            {"type": "attention", "num_heads": 2, "dropout": 0.1},
            {"type": "rnn", "cell": "lstm", "units": 8, "forget_bias": 1.0},
            {"type": "linear", "units": 4},
        ],
        "sharing": [{"source": "6", "target": "7"}],
    },
    "optimizer": {"type": "adamw", "lr": 0.01},
}  # fmt: skip
NETWORK = BASE | {
    "model": {
        "type": "cnn",
        "input_shape": [1, 3, 4],
        "stem": {"channels": 8},
        "stages": [{"channels": 8, "blocks": 3}, {"channels": 12, "stride": 2}],
        "dropout": 0.1,
        "sharing": [{"source": "4", "target": "6"}, {"source": "4.layers.0", "target": "8.layers.0"}],
    },
    "optimizer": {"type": "sgd", "lr": 0.1, "momentum": 0.9},
    "training": {"max_steps": 16, "batch_size": 32, "ema": {"decay": 0.9}},
    "data": BASE["data"] | {"loader": {"drop_last": True}},
}
JOBS = {"stack": STACK, "network": NETWORK}


def _on(spec: dict[str, Any], ranks: int) -> dict[str, Any]:
    return spec | ({"distributed": {"strategy": "ddp", "processes_per_node": ranks}} if ranks > 1 else {})


@pytest.mark.proves("ARCH-04", cases=["stack*"])
@pytest.mark.proves("ARCH-10", cases=["stack-1"])
@pytest.mark.proves("ARCH-21", cases=["network*"])
@pytest.mark.proves("ARCH-25")
@pytest.mark.proves("REG-05", cases=["network-1", "stack-1"])
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", JOBS)
def test_killed_and_resumed_it_has_the_bits_of_a_run_that_was_not(
    name: str, ranks: int, nursery: Nursery, tmp_path: Path
) -> None:
    spec = _on(JOBS[name], ranks)
    whole, broken = (workspace(tmp_path / kind, spec, **blobs()) for kind in ("whole", "broken"))
    assert nursery.run(whole, ranks) == [0] * ranks, log(whole)
    interrupted(nursery, broken, ranks, (8, signal.SIGTERM))
    assert finished(broken).metrics == finished(whole).metrics
    assert series(broken) == series(whole)
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert same_bits(final_checkpoint(broken) / file, final_checkpoint(whole) / file)


@pytest.mark.proves("ARCH-01")
@pytest.mark.parametrize("name", JOBS)
def test_two_ranks_learn_what_one_learns(name: str, nursery: Nursery, tmp_path: Path) -> None:
    """Without what looks at a batch as a whole, draws random numbers, or has a kink: rounding to its other side is another gradient."""
    smooth = {"dropout": 0.0, "normalization": {"type": "group"}, "activation": "silu"}
    model = dict(JOBS[name]["model"]) | (smooth if name == "network" else {})
    if name == "stack":
        model["layers"] = [{key: value for key, value in layer.items() if key != "dropout"} for layer in model["layers"]]
    spec = JOBS[name] | {"model": model, "optimizer": {"type": "sgd", "lr": 0.05}}
    homes = []
    for ranks in (1, 2):
        homes.append(workspace(tmp_path / f"{ranks}", _on(spec, ranks), **blobs()))
        assert nursery.run(homes[-1], ranks) == [0] * ranks, log(homes[-1])
    one, two = (tensors(final_checkpoint(home) / "model.safetensors") for home in homes)
    assert one.keys() == two.keys()
    for key, value in one.items():
        np.testing.assert_allclose(value.numpy(), two[key].numpy(), rtol=0, atol=2e-6)


@pytest.mark.proves("ARCH-25")
def test_shared_weights_are_saved_once_and_serve_every_part(nursery: Nursery, tmp_path: Path) -> None:
    home = workspace(tmp_path / "run", STACK, **blobs())
    assert nursery.run(home) == [0], log(home)
    names = set(tensors(final_checkpoint(home) / "model.safetensors"))
    assert "6.q.weight" in names
    assert not any(name.startswith("7.") for name in names)
    model = load(final_checkpoint(home)).model
    first, second = model[6], model[7]  # type: ignore[index]  # a Sequential
    assert first.q.weight.data_ptr() == second.q.weight.data_ptr()
    assert torch.equal(first.q.weight.detach(), tensors(final_checkpoint(home) / "model.safetensors")["6.q.weight"])


def _pooled(x: np.ndarray[Any, Any], kind: str) -> np.ndarray[Any, Any]:
    """Windows of 2 x 3 that do not overlap, of (n, channels, 4, 6), by NumPy alone."""
    windows = x.astype(np.float64).reshape(len(x), x.shape[1], 2, 2, 2, 3)
    found: np.ndarray[Any, Any] = windows.max((3, 5)) if kind == "max" else windows.mean((3, 5))
    return found.reshape(len(x), -1)


@pytest.mark.proves("ARCH-07", "ARCH-20")
@pytest.mark.parametrize("ranks", [1, 2])
def test_what_pools_and_tanh_make_of_samples_is_what_numpy_does(ranks: int, nursery: Nursery, tmp_path: Path) -> None:
    """The outputs of the saved model and the loss that the run reported, from its weights; of each kind of pool its own."""
    draw = np.random.default_rng(2)
    data = {"x": draw.normal(size=(50, 2, 4, 6)).astype(np.float32), "y": draw.integers(0, 3, 50)}
    outputs = {}
    for kind in ("max", "avg"):
        stack: list[dict[str, Any]] = [
            {"type": "pool", "kind": kind, "kernel_size": [2, 3]},
            {"type": "flatten"},
            {"type": "linear", "units": 5},
            {"type": "activation", "kind": "tanh"},
            {"type": "linear", "units": 3},
        ]
        spec = BASE | {"model": {"type": "layers", "layers": stack}, "training": {"max_steps": 4, "batch_size": 16}}
        spec["data"] = BASE["data"] | {"split": {"validation": 0.2, "test": 0.0, "strategy": "contiguous"}}
        home = workspace(tmp_path / kind, _on(spec, ranks), **data)
        assert nursery.run(home, ranks) == [0] * ranks, log(home)
        w = {key: value.double().numpy() for key, value in tensors(final_checkpoint(home) / "model.safetensors").items()}
        hidden = np.tanh(_pooled(data["x"], kind) @ w["2.weight"].T + w["2.bias"])
        outputs[kind] = hidden @ w["4.weight"].T + w["4.bias"]
        np.testing.assert_allclose(load(final_checkpoint(home)).outputs(data["x"]), outputs[kind], rtol=0, atol=2e-6)
        surprise = -special.log_softmax(outputs[kind][40:], axis=1)[np.arange(10), data["y"][40:]]
        assert series(home)[4, "validation/loss"] == pytest.approx(surprise.mean(), rel=1e-5)
    assert np.abs(outputs["max"] - outputs["avg"]).max() > 0.01
