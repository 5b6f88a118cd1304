"""Two networks that learn in turn, through the whole program, against loops written down plainly with torch alone."""

import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from stoker.events import Artifact, Metrics, Started
from tests.support.same_runs import interrupted
from tests.support.trainer_runs import (
    Nursery,
    events,
    final_checkpoint,
    finished,
    log,
    same_bits,
    series,
    tensors,
    workspace,
)
from worker.trainer.data import TensorSamples
from worker.trainer.data.noise import WithNoise
from worker.trainer.predict import load
from worker.trainer.reproducibility import Seeds

Json = dict[str, Any]
WIDE = {"type": "mlp", "hidden_sizes": [16]}
LATENT = 3
GAN: Json = {
    "task": {"type": "gan", "discriminator_optimizer": {"type": "sgd", "lr": 0.1, "momentum": 0.5}, "samples": 9},
    "model": {"type": "gan", "latent_dim": LATENT, "generator": WIDE, "discriminator": WIDE | {"activation": "leaky_relu"}},
    "data": {"source": {"type": "arrays", "dataset": "set@1"}, "split": {"validation": 0.2}, "loader": {"shuffle": False}},
    "optimizer": {"type": "adam", "lr": 0.01, "beta1": 0.5},
    "training": {"max_steps": 12, "batch_size": 32},
    "evaluation": {"interval": {"steps": 6}, "metrics": ["mmd", "frechet_distance"]},
    "logging": {"interval": {"steps": 3}},
    "reproducibility": {"seed": 7},
}


def ring(count: int = 240, modes: int = 8, spread: float = 0.1) -> np.ndarray[Any, Any]:
    """A mixture of Gaussians on a circle."""
    draw = np.random.default_rng(0)
    angles = draw.integers(0, modes, count) * 2 * math.pi / modes
    centres = 2 * np.stack([np.cos(angles), np.sin(angles)], 1)
    return (centres + spread * draw.normal(size=(count, 2))).astype(np.float32)


def on(spec: Json, ranks: int) -> Json:
    return spec | ({"distributed": {"strategy": "ddp", "processes_per_node": ranks}} if ranks > 1 else {})


def net(inputs: int, outputs: int, bend: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 16), bend, nn.Linear(16, outputs))


def slopes(judge: nn.Module, places: torch.Tensor) -> torch.Tensor:
    """One by one."""
    names = dict(judge.named_parameters())

    def says(place: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(judge, names, (place,)).squeeze()

    return torch.stack([torch.func.grad(says)(place).norm() for place in places])


def cross(said: torch.Tensor, wanted: float) -> torch.Tensor:
    chance = torch.sigmoid(said)
    return -(wanted * chance.log() + (1 - wanted) * (1 - chance).log()).mean()


Aim = Callable[..., torch.Tensor]
LOSSES: dict[str, tuple[Json, Aim, Aim]] = {
    "non_saturating": (
        {"type": "non_saturating", "label_smoothing": 0.1},
        lambda judge, real, made, share: cross(judge(real), 0.9) + cross(judge(made), 0.0),
        lambda said: cross(said, 1.0),
    ),
    "hinge": (
        {"type": "hinge"},
        lambda judge, real, made, share: (1 - judge(real)).clamp(min=0).mean() + (1 + judge(made)).clamp(min=0).mean(),
        lambda said: -said.mean(),
    ),
    "wasserstein": (
        {"type": "wasserstein", "gradient_penalty": 3.0},
        lambda judge, real, made, share: (
            judge(made).mean() - judge(real).mean() + 3.0 * ((slopes(judge, share * real + (1 - share) * made) - 1) ** 2).mean()
        ),
        lambda said: -said.mean(),
    ),
}


def by_hand(x: np.ndarray[Any, Any], kind: str, every: int, steps: int) -> dict[str, torch.Tensor]:
    """The same networks, learning in turn on the same noise: weights after so many steps."""
    _, of_judge, of_maker = LOSSES[kind]
    torch.manual_seed(7)
    maker, judge = net(LATENT, 2, nn.ReLU()), net(2, 1, nn.LeakyReLU())
    moves_maker = torch.optim.Adam(maker.parameters(), 0.01, (0.5, 0.999))
    moves_judge = torch.optim.SGD(judge.parameters(), 0.1, 0.5)
    samples = TensorSamples(torch.from_numpy(x), torch.empty(len(x), 0))
    noise = WithNoise(samples, LATENT, "normal", Seeds(7, 7).latent)
    for step in range(steps):
        rows = torch.arange(step * 32 % 192, step * 32 % 192 + 32)
        given, real = noise.drawn(rows, step * 32 // 192)
        made = maker(given[:, :LATENT]).detach()
        moves_judge.zero_grad()
        of_judge(judge, real, made, given[:, -1:]).backward()
        moves_judge.step()
        if (step + 1) % every == 0:
            moves_maker.zero_grad()
            of_maker(judge(maker(given[:, LATENT : 2 * LATENT]))).backward()
            moves_maker.step()
    named = {"generator": maker, "discriminator": judge}
    return {f"{name}.{key}": value for name, module in named.items() for key, value in module.state_dict().items()}


@pytest.mark.proves("ARCH-24")
@pytest.mark.parametrize(("kind", "every"), [("non_saturating", 1), ("hinge", 3), ("wasserstein", 2)])
def test_it_learns_what_a_loop_by_hand_learns(kind: str, every: int, nursery: Nursery, tmp_path: Path) -> None:
    spec = GAN | {"task": GAN["task"] | {"discriminator_steps": every}, "loss": LOSSES[kind][0]}
    x = ring()
    rows = _training_rows(x)
    home = workspace(tmp_path / "run", spec, x=x)
    assert nursery.run(home) == [0], log(home)
    wanted = by_hand(rows, kind, every, 12)
    found = tensors(final_checkpoint(home) / "model.safetensors")
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=3e-6)
    started = [event for event in events(home) if isinstance(event, Started)]
    assert started[0].parameters == sum(value.numel() for value in wanted.values())


def _training_rows(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """As the run splits them."""
    from stoker.spec.data.split import Split
    from worker.trainer.data.split import split_rows

    return x[split_rows(Split(validation=0.2), len(x), None, Seeds(7, 7).split).train.numpy()]


CASES: dict[str, Json] = {
    "plain": GAN | {"task": GAN["task"] | {"discriminator_steps": 2}},
    "slopes": GAN
    | {
        "loss": {"type": "wasserstein"},
        "optimizer": {"type": "sgd", "lr": 0.01},
        "task": {"type": "gan"},
        "training": {"max_steps": 12, "batch_size": 32, "micro_batch_size": 8},
    },
}


@pytest.mark.proves("ARCH-24")
@pytest.mark.parametrize("name", CASES)
def test_two_ranks_learn_what_one_learns(name: str, nursery: Nursery, tmp_path: Path) -> None:
    homes = [workspace(tmp_path / str(ranks), on(CASES[name], ranks), x=ring(245)) for ranks in (1, 2)]
    for ranks, home in enumerate(homes, 1):
        assert nursery.run(home, ranks) == [0] * ranks, log(home)
    one, two = (tensors(final_checkpoint(home) / "model.safetensors") for home in homes)
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=0, atol=1e-6)
    values, others = (series(home) for home in homes)
    assert values.keys() == others.keys()
    assert {key for _, key in values} >= {
        "train/loss",
        "train/discriminator_loss",
        "validation/mmd",
        "validation/discriminator_loss",
    }
    for key, value in values.items():
        assert others[key] == pytest.approx(value, rel=1e-4, abs=1e-5), key


@pytest.mark.proves("ARCH-24")
@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_and_resumed_it_has_the_bits_of_a_run_that_was_not(ranks: int, nursery: Nursery, tmp_path: Path) -> None:
    """Dropout, an average of the generator, another number of steps for the discriminator, and losses not yet reported."""
    spec = on(
        GAN
        | {
            "task": GAN["task"] | {"discriminator_steps": 2},
            "model": GAN["model"] | {"discriminator": WIDE | {"dropout": 0.2}, "latent": "uniform"},
            "training": {"max_steps": 20, "batch_size": 32, "ema": {"decay": 0.9}},
            "checkpoint": {"interval": {"steps": 7}},
            "debug": {"nan_policy": {"type": "skip_step"}},
        },
        ranks,
    )
    whole, broken = (workspace(tmp_path / kind, spec, x=ring(245)) for kind in ("whole", "broken"))
    assert nursery.run(whole, ranks) == [0] * ranks, log(whole)
    interrupted(nursery, broken, ranks, (18, signal.SIGKILL))  # after the discriminator's twelfth update
    for file in ("model.safetensors", "optimizer.safetensors", "parts.safetensors"):
        assert same_bits(final_checkpoint(whole) / file, final_checkpoint(broken) / file), file
    assert series(whole) == series(broken)
    kept = tensors(final_checkpoint(whole) / "optimizer.safetensors")
    assert {"generator.0.weight.exp_avg", "discriminator.0.weight.momentum_buffer"} <= kept.keys()
    averaged = [name for name in tensors(final_checkpoint(whole) / "parts.safetensors") if name.startswith("average/")]
    assert averaged
    assert all(name.startswith("average/generator.") for name in averaged)


@pytest.mark.proves("ARCH-24")
def test_its_samples_come_to_be_like_those_of_the_data(nursery: Nursery, tmp_path: Path) -> None:
    """A Gaussian with means far from zero: mean, spread and correlation are learned."""
    draw = np.random.default_rng(1)
    x = (draw.normal(size=(600, 2)) @ np.array([[1.5, 0.8], [0.0, 0.6]]) + [4.0, -3.0]).astype(np.float32)
    spec = GAN | {
        "task": GAN["task"] | {"samples": 1000, "discriminator_optimizer": {"type": "adam", "lr": 0.005, "beta1": 0.5}},
        "optimizer": {"type": "adam", "lr": 0.002, "beta1": 0.5},
        "data": GAN["data"] | {"normalization": {"type": "standard"}, "loader": {"shuffle": True}},
        "loss": {"type": "non_saturating"},
        "training": {"max_steps": 600, "batch_size": 64, "ema": {"decay": 0.98}},
        "evaluation": {"interval": {"steps": 50}, "metrics": ["mmd", "frechet_distance"]},
        "logging": {"interval": {"steps": 100}},
    }
    home = workspace(tmp_path / "run", spec, x=x)
    assert nursery.run(home) == [0], log(home)
    values = series(home)
    first, last = (values[step, "validation/frechet_distance"] for step in (50, 600))
    assert last < 0.1 < first, (first, last)
    assert values[600, "validation/mmd"] < 0.02 < values[50, "validation/mmd"]
    made = load_file(home / "artifacts" / "samples.safetensors")["samples"].double().numpy()
    assert made.shape == (1000, 2)
    assert np.abs(made.mean(0) - x.mean(0)).max() < 0.4
    assert np.abs(np.cov(made.T) - np.cov(x.T)).max() < 0.6
    model = load(final_checkpoint(home))
    assert np.array_equal(model.samples(1000, seed=7), load_file(home / "artifacts" / "samples.safetensors")["samples"].numpy())
    with pytest.raises(ValueError, match="use samples"):
        model.predict(x[:3])
    assert finished(home).metrics["validation/mmd"] == values[600, "validation/mmd"]
    assert [event.name for event in events(home) if isinstance(event, Artifact)] == ["samples.safetensors"]


@pytest.mark.proves("ARCH-24")
def test_a_bounded_discriminator_tells_a_mixture_from_noise(nursery: Nursery, tmp_path: Path) -> None:
    """The generator stands nearly still. Each layer of the discriminator has a largest singular value of one, by SVD."""
    spec = GAN | {
        "optimizer": {"type": "sgd", "lr": 1e-9},
        "task": GAN["task"] | {"discriminator_optimizer": {"type": "adam", "lr": 0.01}},
        "model": GAN["model"] | {"discriminator": {"type": "mlp", "hidden_sizes": [64, 64], "activation": "leaky_relu"}},
        "loss": {"type": "hinge"},
        "training": {"max_steps": 200, "batch_size": 64},
        "regularization": {"spectral_norm": {"pattern": "discriminator.*"}},
        "evaluation": {"interval": {"steps": 1}, "metrics": [], "batches": 1},
        "checkpoint": {"export": ["safetensors"]},
    }
    home = workspace(tmp_path / "run", spec, x=5 * ring())
    assert nursery.run(home) == [0], log(home)
    values = series(home)
    assert values[200, "validation/discriminator_loss"] < 0.3 < 1 < values[1, "validation/discriminator_loss"]
    assert values[200, "validation/discriminator_accuracy"] > 0.95
    exported = load_file(home / "artifacts" / "export" / "safetensors" / "model.safetensors")
    matrices = [value.numpy() for name, value in exported.items() if name.startswith("discriminator.") and value.dim() > 1]
    assert len(matrices) == 3
    assert [np.linalg.svd(matrix, compute_uv=False)[0] for matrix in matrices] == pytest.approx([1.0] * 3, abs=1e-3)
    assert np.linalg.svd(exported["generator.2.weight"].numpy(), compute_uv=False)[0] != pytest.approx(1.0, abs=1e-2)
    reports = [event for event in events(home) if isinstance(event, Metrics)]
    assert "train/discriminator_loss" in reports[-1].values or "train/discriminator_loss" in reports[-2].values


def test_pictures_are_made_by_layers_and_left_as_a_sheet(nursery: Nursery, tmp_path: Path) -> None:
    from PIL import Image

    model: Json = {
        "type": "gan",
        "latent_dim": 4,
        "output": "sigmoid",
        "generator": {"type": "layers", "layers": [{"type": "linear", "units": 48}, {"type": "reshape", "shape": [3, 4, 4]}]},
        "discriminator": {
            "type": "cnn",
            "stem": {"channels": 4},
            "stages": [{"channels": 4}],
            "normalization": {"type": "group"},
        },
    }
    draw = np.random.default_rng(0)
    spec = GAN | {"model": model, "precision": {"mode": "bf16_mixed"}, "evaluation": {"interval": {"epochs": 1}}}
    home = workspace(tmp_path / "run", spec, x=draw.uniform(0, 200, size=(64, 3, 4, 4)).astype(np.float32))
    assert nursery.run(home) == [0], log(home)
    samples = load_file(home / "artifacts" / "samples.safetensors")["samples"]
    assert samples.shape == (9, 3, 4, 4)
    sheet = np.asarray(Image.open(home / "artifacts" / "samples.png"))
    assert sheet.shape == (12, 12, 3)
    low, high = 0.0, 200.0
    fifth = samples[4].numpy()  # in the middle of three rows of three
    wanted = np.clip((fifth - low) / (high - low), 0, 1) * 255
    assert np.abs(sheet[4:8, 4:8].transpose(2, 0, 1) - wanted).max() <= 2, "bounds are those of the data, nearly 0 and 200"
