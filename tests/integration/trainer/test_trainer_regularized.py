"""Penalties, bounds and what is said of the fit, in whole runs, each against arithmetic written out here or scikit-learn."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stoker.events import Notice
from tests.support.late import Late
from tests.support.same_runs import interrupted
from tests.support.trainer_runs import (
    Nursery,
    blobs,
    events,
    final_checkpoint,
    log,
    same_bits,
    series,
    tensors,
    trained,
    workspace,
)
from worker.trainer.checkpoint import load_model

linear_model = Late("sklearn.linear_model")

Json = dict[str, Any]
Weights = dict[str, torch.Tensor]
SPEC: Json = {
    "task": {"type": "regression"},
    "model": {"type": "mlp", "hidden_sizes": [6], "activation": "tanh"},
    "data": {
        "source": {"type": "arrays", "dataset": "set@1"},
        "split": {"validation": 0.0, "test": 0.0, "strategy": "contiguous"},
        "loader": {"shuffle": False},
    },
    "training": {"max_steps": 1, "batch_size": 40, "micro_batch_size": 10},
    "optimizer": {"type": "sgd", "lr": 0.1},
    "logging": {"interval": {"steps": 1}, "performance": False},
    "evaluation": {"interval": {"steps": 1000}},
    "checkpoint": {"interval": {"steps": 1000}},
}
STILL = [{"pattern": "*", "lr_scale": 0.0}]


def sparse_line(noise: float = 0.1) -> dict[str, np.ndarray[Any, Any]]:
    """(40, 8) inputs of which three matter."""
    draw = np.random.default_rng(3)
    x = draw.normal(size=(40, 8))
    y = x @ np.array([2.0, 0, 0, -1.5, 0, 0.8, 0, 0])[:, None] + 0.5 + noise * draw.normal(size=(40, 1))
    return {"x": x.astype(np.float32), "y": y.astype(np.float32)}


def train(nursery: Nursery, home: Path, spec: Json, ranks: int = 1, **arrays: Any) -> Path:
    return trained(nursery, home, spec, ranks, **(arrays or sparse_line()))


def weights(home: Path) -> Weights:
    return tensors(final_checkpoint(home) / "model.safetensors")


def matrices(w: Weights) -> list[torch.Tensor]:
    return [value for value in w.values() if value.dim() > 1]


def off(w: torch.Tensor) -> torch.Tensor:
    square = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    return (square - torch.eye(len(square), dtype=w.dtype)).square().sum()


PENALTIES: dict[str, tuple[Json, dict[str, Callable[[Weights], torch.Tensor]]]] = {
    "l1": ({"l1": {"strength": 0.03}}, {"l1": lambda w: 0.03 * sum(m.abs().sum() for m in matrices(w))}),
    "l2": ({"l2": {"strength": 0.02, "pattern": "*"}}, {"l2": lambda w: 0.02 * sum(m.square().sum() for m in w.values())}),
    "elastic_net": (
        {"elastic_net": {"strength": 0.04, "l1_ratio": 0.25}},
        {
            "elastic_net_l1": lambda w: 0.01 * sum(m.abs().sum() for m in matrices(w)),
            "elastic_net_l2": lambda w: 0.03 * sum(m.square().sum() for m in matrices(w)),
        },
    ),
    "rows": (
        {"group_lasso": {"strength": 0.05}},
        {"group_lasso": lambda w: 0.05 * sum(m.norm(dim=1).sum() * m.shape[1] ** 0.5 for m in matrices(w))},
    ),
    "columns": (
        {"group_lasso": {"strength": 0.05, "groups": "columns"}},
        {"group_lasso": lambda w: 0.05 * sum(m.norm(dim=0).sum() * m.shape[0] ** 0.5 for m in matrices(w))},
    ),
    "orthogonal": ({"orthogonal": {"strength": 0.1}}, {"orthogonal": lambda w: 0.1 * sum(off(m) for m in matrices(w))}),
    "two": (
        {"l1": {"strength": 0.03, "pattern": "*bias"}, "l2": {"strength": 0.02}},
        {
            "l1": lambda w: 0.03 * sum(m.abs().sum() for m in w.values() if m.dim() == 1),
            "l2": lambda w: 0.02 * sum(m.square().sum() for m in matrices(w)),
        },
    ),
}
HOW: dict[str, tuple[Json, int]] = {
    "single": ({"strategy": "single"}, 1),
    "ddp": ({"strategy": "ddp", "processes_per_node": 2}, 2),
    "fsdp": ({"strategy": "fsdp", "processes_per_node": 2}, 2),
}


def predicted(w: Weights, x: torch.Tensor) -> torch.Tensor:
    """By an MLP of one hidden layer."""
    (first, first_bias), (last, last_bias) = [
        (m, next(b for b in w.values() if b.dim() == 1 and len(b) == len(m))) for m in matrices(w)
    ]
    return torch.tanh(x @ first.T + first_bias) @ last.T + last_bias


@pytest.fixture(scope="module")
def start(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """The weights that every run here begins with."""
    still = SPEC | {"optimizer": SPEC["optimizer"] | {"param_groups": STILL}}
    return {n: w.double() for n, w in weights(train(nursery, tmp_path_factory.mktemp("start") / "run", still)).items()}


@pytest.mark.proves("REG-01")
@pytest.mark.proves("REG-02", cases=["l1-ddp", "l1-single"])
@pytest.mark.proves(
    "REG-04",
    cases=[
        "columns-ddp",
        "columns-fsdp",
        "columns-single",
        "elastic_net-ddp",
        "elastic_net-fsdp",
        "elastic_net-single",
        "orthogonal-ddp",
        "orthogonal-fsdp",
        "orthogonal-single",
        "rows-ddp",
        "rows-fsdp",
        "rows-single",
        "two-ddp",
        "two-fsdp",
        "two-single",
    ],
)
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_penalty_is_added_to_the_mean_loss(penalty: str, how: str, start: Weights, nursery: Nursery, tmp_path: Path) -> None:
    asked, values = PENALTIES[penalty]
    spread, ranks = HOW[how]
    home = train(nursery, tmp_path / "run", SPEC | {"regularization": asked, "distributed": spread}, ranks)
    variables = {name: w.clone().requires_grad_() for name, w in start.items()}
    data = {name: torch.from_numpy(v).double() for name, v in sparse_line().items()}
    loss = (predicted(variables, data["x"]) - data["y"]).square().mean()
    total = loss + sum(value(variables) for value in values.values())
    total.backward()
    for name, after in weights(home).items():
        gradient = variables[name].grad
        assert gradient is not None
        torch.testing.assert_close(after.double(), start[name] - 0.1 * gradient, rtol=0, atol=1e-6)
    logged = series(home)
    assert logged[1, "train/loss"] == pytest.approx(loss.item(), rel=1e-6), "the loss of the data alone"
    for name, value in values.items():
        ended = {n: w.double() for n, w in weights(home).items()}
        assert logged[1, f"train/penalty_{name}"] == pytest.approx(value(ended).item(), rel=1e-5)


@pytest.mark.proves("REG-04")
@pytest.mark.parametrize("how", HOW)
def test_an_elastic_net_is_both_penalties_together(how: str, nursery: Nursery, tmp_path: Path) -> None:
    """Five steps: a quarter of its strength on absolute weights, three quarters on their squares."""
    spread, ranks = HOW[how]
    learned = []
    for name, asked in (
        ("net", {"elastic_net": {"strength": 0.04, "l1_ratio": 0.25}}),
        ("sum", {"l1": {"strength": 0.01}, "l2": {"strength": 0.03}}),
        ("none", {}),
    ):
        spec = SPEC | {"regularization": asked, "distributed": spread, "training": SPEC["training"] | {"max_steps": 5}}
        learned.append(weights(train(nursery, tmp_path / name, spec, ranks)))
    net, both, none = learned
    for name, w in both.items():
        torch.testing.assert_close(net[name], w, rtol=0, atol=1e-6)
    assert max(float((net[name] - w).abs().max()) for name, w in none.items()) > 1e-3


def shrunk(w: torch.Tensor, by: float) -> torch.Tensor:
    return w.sign() * (w.abs() - by).clamp(min=0)


PROXIMAL: dict[str, tuple[Json, Callable[[torch.Tensor], torch.Tensor]]] = {
    "l1": ({"l1": {"strength": 0.5, "proximal": True}}, lambda w: shrunk(w, 0.05)),
    "rows": (
        {"group_lasso": {"strength": 2.0, "proximal": True}},
        lambda w: w * (1 - 0.2 * w.shape[1] ** 0.5 / w.norm(dim=1, keepdim=True)).clamp(min=0),
    ),
    "columns": (
        {"group_lasso": {"strength": 2.0, "proximal": True, "groups": "columns"}},
        lambda w: w * (1 - 0.2 * w.shape[0] ** 0.5 / w.norm(dim=0, keepdim=True)).clamp(min=0),
    ),
}


@pytest.mark.proves("REG-02")
@pytest.mark.parametrize("how", ["single", "fsdp"])
@pytest.mark.parametrize("penalty", PROXIMAL)
def test_a_proximal_step_follows_the_step(penalty: str, how: str, nursery: Nursery, tmp_path: Path) -> None:
    asked, then = PROXIMAL[penalty]
    spread, ranks = HOW[how]
    plain = weights(train(nursery, tmp_path / "plain", SPEC | {"distributed": spread}, ranks))
    after = weights(train(nursery, tmp_path / "run", SPEC | {"distributed": spread, "regularization": asked}, ranks))
    for name, w in plain.items():
        expected = then(w.double()) if w.dim() > 1 else w.double()
        torch.testing.assert_close(after[name].double(), expected, rtol=0, atol=1e-6)
    assert any((w == 0).any() for w in matrices(after)), "some rest at zero"


LINE = SPEC | {
    "model": {"type": "mlp", "hidden_sizes": []},
    "training": {"max_steps": 600, "batch_size": 40},
    "logging": {"interval": {"steps": 600}, "performance": False},
}


def coefficients(home: Path) -> np.ndarray[Any, Any]:
    (matrix,) = matrices(weights(home))
    return matrix.double().numpy()[0]


@pytest.mark.proves("REG-02")
@pytest.mark.parametrize("strength", [0.1, 0.6])
def test_proximal_lasso_finds_what_scikit_learn_finds(strength: float, nursery: Nursery, tmp_path: Path) -> None:
    data = sparse_line()
    asked = {"l1": {"strength": strength, "proximal": True}}
    ours = coefficients(train(nursery, tmp_path / "run", LINE | {"regularization": asked}, **data))
    theirs = (
        linear_model.Lasso(alpha=strength / 2, tol=1e-10, max_iter=100_000)
        .fit(data["x"].astype(np.float64), data["y"][:, 0].astype(np.float64))
        .coef_
    )
    assert (ours != 0).tolist() == (theirs != 0).tolist()
    assert 0 < np.count_nonzero(ours) < 8
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.proves("REG-03")
def test_ridge_is_the_closed_form(nursery: Nursery, tmp_path: Path) -> None:
    data = sparse_line()
    ours = coefficients(train(nursery, tmp_path / "run", LINE | {"regularization": {"l2": {"strength": 0.3}}}, **data))
    theirs = linear_model.Ridge(alpha=40 * 0.3).fit(data["x"].astype(np.float64), data["y"][:, 0].astype(np.float64)).coef_
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.proves("REG-03")
def test_squared_weights_are_decay_of_twice_the_strength(nursery: Nursery, tmp_path: Path) -> None:
    longer = SPEC | {"training": SPEC["training"] | {"max_steps": 20}}
    asked = {"l2": {"strength": 0.05, "pattern": "*"}}
    penalty = weights(train(nursery, tmp_path / "penalty", longer | {"regularization": asked}))
    decay = weights(train(nursery, tmp_path / "decay", longer | {"optimizer": SPEC["optimizer"] | {"weight_decay": 0.1}}))
    for name, w in penalty.items():
        torch.testing.assert_close(w, decay[name], rtol=0, atol=1e-6)


def test_a_pattern_that_matches_nothing_is_refused(nursery: Nursery, tmp_path: Path) -> None:
    home = workspace(
        tmp_path / "run", SPEC | {"regularization": {"l1": {"strength": 0.1, "pattern": "attention.*"}}}, **sparse_line()
    )
    assert nursery.run(home) == [2]
    assert "regularization.l1.pattern: 'attention.*' matches no weight" in events(home)[-1].message


BOUND: Json = {
    "task": {"type": "classification"},
    "model": {"type": "mlp", "hidden_sizes": [16, 8]},
    "data": {"source": {"type": "arrays", "dataset": "set@1"}, "split": {"validation": 0.2, "test": 0.0}},
    "training": {"max_steps": 40, "batch_size": 48, "micro_batch_size": 24},
    "optimizer": {"type": "sgd", "lr": 0.05},
    "schedule": {"type": "cosine"},
    "regularization": {"spectral_norm": {"n_power_iterations": 10}},
    "logging": {"interval": {"steps": 5}, "performance": False},
    "evaluation": {"interval": {"steps": 10}},
    "checkpoint": {"interval": {"steps": 10}, "export": ["safetensors"]},
}


@pytest.mark.proves("ARCH-23")
def test_no_layer_stretches_its_input(nursery: Nursery, tmp_path: Path) -> None:
    home = train(nursery, tmp_path / "run", BOUND, **blobs())
    read = matrices(load_file(home / "artifacts/export/safetensors/model.safetensors"))
    assert [np.linalg.svd(w.numpy(), compute_uv=False)[0] for w in read] == pytest.approx([1.0] * 3, abs=1e-3)
    saved = [m for n, m in weights(home).items() if n.endswith(".weight")]
    assert max(np.linalg.svd(w.numpy(), compute_uv=False)[0] for w in saved) > 1.01, "what is learned is not bounded itself"
    model = load_model(final_checkpoint(home)).model
    held = [m.weight.detach() for m in model.modules() if isinstance(m, torch.nn.Linear)]
    for ours in held:
        (theirs,) = [w for w in read if w.shape == ours.shape]
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)


@pytest.mark.proves("ARCH-23")
def test_the_estimates_follow_the_weights_and_are_those_of_any_ranks(nursery: Nursery, tmp_path: Path) -> None:
    alone = weights(train(nursery, tmp_path / "alone", BOUND, **blobs()))
    pair = BOUND | {"distributed": {"strategy": "ddp", "processes_per_node": 2}}
    pair |= {"training": BOUND["training"] | {"micro_batch_size": 8}}
    both = weights(train(nursery, tmp_path / "both", pair, 2, **blobs()))
    assert {name for name in alone if name.endswith(".u")}
    for name, w in alone.items():
        torch.testing.assert_close(both[name], w, rtol=0, atol=2e-6)


@pytest.mark.proves("ARCH-23")
def test_a_bounded_run_goes_on_with_the_same_bits(nursery: Nursery, tmp_path: Path) -> None:
    spec = BOUND | {"training": BOUND["training"] | {"max_steps": 40}}
    whole = train(nursery, tmp_path / "whole", spec, **blobs())
    home = workspace(tmp_path / "stopped", spec, **blobs())
    interrupted(nursery, home, 1, (20, signal.SIGKILL))
    assert same_bits(final_checkpoint(whole) / "model.safetensors", final_checkpoint(home) / "model.safetensors")


@pytest.mark.proves("REG-09")
def test_more_weights_are_zero_the_stronger_the_penalty(nursery: Nursery, tmp_path: Path) -> None:
    zeros = list[float]()
    for index, strength in enumerate((0.02, 0.2, 1.2)):
        asked = {"l1": {"strength": strength, "proximal": True}}
        spec = LINE | {"regularization": asked, "evaluation": LINE["evaluation"] | {"sparsity_report": {}}}
        home = train(nursery, tmp_path / str(index), spec)
        report = json.loads((home / "artifacts/sparsity.json").read_text())
        (row,) = [row for row in report["weights"] if row["numbers"] == 8]
        expected = np.flatnonzero(coefficients(home) == 0).tolist()
        assert (report["zero_features"], row["zeros"]) == (expected, len(expected))
        zeros.append(series(home)[600, "sparsity/zeros"])
    assert zeros == sorted(zeros)
    assert zeros[0] < zeros[1] < zeros[2]


def verdict(home: Path) -> str:
    (notice,) = [e for e in events(home) if isinstance(e, Notice) and e.code.startswith("fit_")]
    document = json.loads((home / "artifacts/fit.json").read_text())
    assert notice.code == f"fit_{document['verdict']}"
    return str(document["verdict"])


@pytest.mark.proves("REG-10")
def test_too_much_and_too_little_are_told_apart(nursery: Nursery, tmp_path: Path) -> None:
    spec = BOUND | {
        "regularization": {},
        "optimizer": {"type": "adam", "lr": 0.01},
        "training": {"max_steps": 300, "batch_size": 48},
        "model": {"type": "mlp", "hidden_sizes": [64]},
        "evaluation": {"interval": {"steps": 300}, "fit_diagnosis": {}},
    }
    draw = np.random.default_rng(1)
    chance = {"x": draw.normal(size=(120, 12)).astype(np.float32), "y": draw.integers(0, 4, 120)}
    y = draw.integers(0, 4, 200)
    easy = {"x": (np.eye(4)[y] * 4 + 0.3 * draw.normal(size=(200, 4))).astype(np.float32), "y": y}
    assert verdict(train(nursery, tmp_path / "chance", spec, **chance)) == "overfit"
    assert verdict(train(nursery, tmp_path / "easy", spec, **easy)) == "good"
    lazy = spec | {"optimizer": {"type": "sgd", "lr": 1e-4}, "training": {"max_steps": 3, "batch_size": 48}}
    assert verdict(train(nursery, tmp_path / "lazy", lazy, **easy)) == "underfit"
    alike = {"x": easy["x"], "y": np.full((200, 1), 2.0, np.float32)}
    same = spec | {"task": {"type": "regression"}, "training": {"max_steps": 3, "batch_size": 48}}
    assert verdict(train(nursery, tmp_path / "alike", same, **alike)) == "good", "there is nothing to explain"
    entropy = -sum(p * np.log(p) for p in np.bincount(chance["y"][: len(chance["y"])]) / len(chance["y"]))
    found = json.loads((tmp_path / "chance/artifacts/fit.json").read_text())["losses"]["constant"]
    assert found == pytest.approx(entropy, abs=0.03), "of the training split"


def test_a_report_of_sparsity_counts_the_weights_of_every_stage(nursery: Nursery, tmp_path: Path) -> None:
    spread = {"strategy": "ddp", "processes_per_node": 2, "pipeline_parallel": {"degree": 2}}
    spec = {
        "task": {"type": "causal_lm"},
        "model": {"type": "transformer_decoder", "hidden_size": 16, "num_layers": 2, "num_heads": 2, "tie_embeddings": False},
        "data": {
            "source": {"type": "text", "dataset": "set@1"},
            "tokenizer": {"type": "char"},
            "sequence": {"length": 16},
            "split": {"validation": 0.1, "test": 0.0},
        },
        "training": {"max_steps": 1, "batch_size": 8, "micro_batch_size": 4},
        "evaluation": {"sparsity_report": {}},
        "distributed": spread,
    }
    home = workspace(tmp_path / "run", spec)
    (home / "data" / "set@1" / "a.txt").write_text("the quick brown fox jumps over the lazy dog. " * 30)
    assert nursery.run(home, 2) == [0, 0], log(home)
    report = json.loads((home / "artifacts" / "sparsity.json").read_text())
    assert {row["name"]: row["numbers"] for row in report["weights"]} == {n: w.numel() for n, w in weights(home).items()}
    assert report["zero_features"] is None
