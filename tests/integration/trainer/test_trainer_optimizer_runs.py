"""Optimizers, groups of weights and schedules in whole runs: one step by hand, on several ranks, and across a resume."""

import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stoker.events import Notice
from tests.support.optimizer_formulas import CASES, Array
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

Json = dict[str, Any]
SPEC: Json = {
    "task": {"type": "classification"},
    "model": {"type": "mlp", "hidden_sizes": [24, 16], "normalization": {"type": "layer"}},
    "data": {"source": {"type": "arrays", "dataset": "set@1"}, "split": {"validation": 0.2, "test": 0}},
    "training": {"max_steps": 8, "batch_size": 64, "micro_batch_size": 8},
    "logging": {"interval": {"steps": 1}, "performance": False},
    "evaluation": {"interval": {"steps": 1}},
    "checkpoint": {"interval": {"steps": 4}},
}
LINE: Json = SPEC | {
    "task": {"type": "regression"},
    "model": {"type": "mlp", "hidden_sizes": []},
    "data": SPEC["data"] | {"split": {"strategy": "contiguous", "validation": 0.2, "test": 0}, "loader": {"shuffle": False}},
}
STILL = [{"pattern": "*", "lr_scale": 0.0}]


def _weights(home: Path) -> dict[str, Any]:
    return {name: value.numpy() for name, value in tensors(final_checkpoint(home) / "model.safetensors").items()}


def _logged(home: Path, key: str = "train/lr") -> list[float]:
    return [value for (_, name), value in sorted(series(home).items()) if name == key]


@pytest.mark.proves("OPT-02", "OPT-04")
def test_the_first_step_of_sgd_is_the_rate_times_the_gradient(nursery: Nursery, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    x, w = draw.normal(size=(10, 5)).astype(np.float32), draw.normal(size=(5, 1))
    data = {"x": x, "y": (x @ w).astype(np.float32)}
    spec = LINE | {"training": {"max_steps": 1, "batch_size": 8}}
    sgd = {"type": "sgd", "lr": 0.125}
    start = _weights(trained(nursery, tmp_path / "still", spec | {"optimizer": sgd | {"param_groups": STILL}}, **data))
    moved_home = trained(nursery, tmp_path / "moved", spec | {"optimizer": sgd}, **data)
    after = _weights(moved_home)
    names = sorted(start, key=lambda name: start[name].ndim)
    bias, weight = (start[name].astype(np.float64) for name in names)
    error = x[:8].astype(np.float64) @ weight.T + bias - data["y"][:8]
    gradients = [2 * error.mean(0), 2 * error.T @ x[:8] / 8]
    for name, gradient in zip(names, gradients, strict=True):
        np.testing.assert_allclose(after[name], start[name] - 0.125 * gradient, rtol=0, atol=1e-6)
    assert _logged(moved_home) == [0.125]


@pytest.mark.proves("REG-07", cases=["norm*"])
@pytest.mark.proves("REG-08", cases=["value"])
@pytest.mark.parametrize(
    "clipping",
    [
        None,
        {"type": "norm", "max_norm": 0.3},
        {"type": "norm", "max_norm": 0.3, "norm_type": 1.0},
        {"type": "value", "value": 0.2},
    ],
    ids=["free", "norm", "norm-1", "value"],
)
def test_gradients_are_bounded_once_all_passes_of_a_step_are_made(
    clipping: Json | None, nursery: Nursery, tmp_path: Path
) -> None:
    """Four passes a step: bounding each of them would give another gradient."""
    draw = np.random.default_rng(0)
    x, w = draw.normal(size=(10, 5)).astype(np.float32), draw.normal(size=(5, 1))
    data = {"x": x, "y": (x @ w).astype(np.float32)}
    training = {"max_steps": 1, "batch_size": 8, "micro_batch_size": 2} | (
        {} if clipping is None else {"gradient_clipping": clipping}
    )
    spec = LINE | {"training": training, "logging": {"interval": {"steps": 1}, "gradient_norm": True, "performance": False}}
    sgd = {"type": "sgd", "lr": 0.5}
    start = _weights(trained(nursery, tmp_path / "still", spec | {"optimizer": sgd | {"param_groups": STILL}}, **data))
    moved = trained(nursery, tmp_path / "moved", spec | {"optimizer": sgd}, **data)
    after = _weights(moved)
    bias, weight = (start[name].astype(np.float64) for name in sorted(start, key=lambda name: start[name].ndim))
    error = x[:8].astype(np.float64) @ weight.T + bias - data["y"][:8]
    gradient = np.concatenate([2 * error.mean(0), (2 * error.T @ x[:8] / 8).ravel()])
    order = float((clipping or {}).get("norm_type", 2.0))
    norm = float(np.linalg.norm(gradient, order))
    assert norm > 0.4
    bounded = gradient
    if clipping is not None and clipping["type"] == "norm":
        bounded = gradient * 0.3 / norm
    elif clipping is not None:
        bounded = np.clip(gradient, -0.2, 0.2)
        assert np.abs(gradient).max() > 0.2
    made = np.concatenate(
        [(start[name] - after[name]).ravel() / 0.5 for name in sorted(start, key=lambda name: start[name].ndim)]
    )
    np.testing.assert_allclose(made, bounded, rtol=0, atol=2e-5)
    assert _logged(moved, "train/gradient_norm") == pytest.approx([norm], rel=1e-5)


ELEMENTWISE = [name for name in CASES if not name.startswith(("adafactor", "muon"))]
"""Cases in which no weight asks where in its matrix it stands."""


@pytest.mark.proves(
    "OPT-01",
    "OPT-03",
    "OPT-04",
    "OPT-05",
    "OPT-06",
    "OPT-07",
    "OPT-08",
    "OPT-09",
    "OPT-10",
    "OPT-11",
    "OPT-12",
    "OPT-13",
    "OPT-14",
    "OPT-15",
    "OPT-16",
    "OPT-17",
    "OPT-18",
)
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_follows_the_formula_of_its_optimizer(ranks: int, nursery: Nursery, tmp_path: Path) -> None:
    """Five steps of a line fitted by least squares: NumPy computes gradients, moments and steps in float64. One process takes
    every case, two take one of each type.
    """
    draw = np.random.default_rng(0)
    x, truth = draw.normal(size=(10, 5)).astype(np.float32), draw.normal(size=(5, 1))
    data = {"x": x, "y": (x @ truth).astype(np.float32)}
    inputs, y = np.hstack([np.ones((8, 1)), x[:8]]), data["y"][:8].astype(np.float64)
    spread = {"distributed": {"strategy": "ddp", "processes_per_node": ranks}} if ranks > 1 else {}
    spec = LINE | {"training": {"max_steps": 5, "batch_size": 8}} | spread

    def gradient(w: Array) -> Array:
        return 2 * inputs.T @ (inputs @ w - y) / 8

    def flat(home: Path) -> Array:
        """Bias first."""
        return np.concatenate([w.ravel() for w in sorted(_weights(home).values(), key=lambda w: w.ndim)])[:, None].astype(float)

    still = {"type": "sgd", "lr": 0.125, "param_groups": STILL}
    start = flat(trained(nursery, tmp_path / "still", spec | {"optimizer": still}, ranks, **data))
    for name in ELEMENTWISE if ranks == 1 else [name for name in ELEMENTWISE if "-" not in name]:
        optimizer, formula = CASES[name]
        home = trained(nursery, tmp_path / name, spec | {"optimizer": optimizer.model_dump(mode="json")}, ranks, **data)
        *_, expected = islice(formula(optimizer, start, gradient), 5)
        np.testing.assert_allclose(flat(home), expected, rtol=0, atol=2e-5, err_msg=name)
        assert np.abs(expected - start).max() > 1e-3, name


OPTIMIZER: Json = {
    "type": "muon",
    "newton_schulz_precision": "weights",
    "decay_norms_and_biases": False,
    "param_groups": [{"pattern": "0.*", "lr_scale": 0.5, "weight_decay": 0.1}],
}
CYCLE = {"type": "cyclic", "step_size_up": {"steps": 3}, "cycle_momentum": True, "warmup_steps": 2}
FSDP = {"strategy": "fsdp", "processes_per_node": 2}


@pytest.mark.proves("OPT-01", cases=["fsdp"])
@pytest.mark.proves("OPT-18", "SCHED-05", cases=["ddp"])
@pytest.mark.parametrize(
    "spread",
    [
        {"strategy": "ddp", "processes_per_node": 2},
        FSDP,
        {"strategy": "parameter_server", "processes_per_node": 3, "servers": 2},
    ],
    ids=lambda spread: str(spread["strategy"]),
)
def test_ranks_together_move_as_one_does(spread: Json, nursery: Nursery, tmp_path: Path) -> None:
    """Matrices and their companion, two rates and two decays, momentum that moves."""
    ranks, spec = spread["processes_per_node"], SPEC | {"optimizer": OPTIMIZER, "schedule": CYCLE}
    whole = trained(nursery, tmp_path / "whole", spec)
    apart = trained(nursery, tmp_path / "apart", spec | {"distributed": spread}, ranks)
    one, other = _weights(whole), _weights(apart)
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=0, atol=2e-5, err_msg=name)
    assert _logged(whole) == _logged(apart)
    assert len(set(_logged(whole))) > 4


@pytest.mark.proves("SCHED-01")
def test_shards_of_momentum_survive_a_resume(nursery: Nursery, tmp_path: Path) -> None:
    spec = SPEC | {"optimizer": OPTIMIZER, "schedule": CYCLE, "distributed": FSDP}
    whole = trained(nursery, tmp_path / "whole", spec, 2)
    again = workspace(tmp_path / "again", spec, **blobs())
    shutil.copytree(whole / "checkpoints" / "step-00000004", again / "checkpoints" / "step-00000004")
    assert nursery.run(again, 2) == [0, 0], log(again)
    assert same_bits(*(final_checkpoint(home) / "model.safetensors" for home in (whole, again)))
    assert _logged(again) == _logged(whole)[4:]


@pytest.mark.proves("SCHED-01", "SCHED-06", "SCHED-08")
def test_a_plateau_is_the_same_for_all_ranks_and_after_a_resume(nursery: Nursery, tmp_path: Path) -> None:
    """No improvement is large enough: the rate halves with every second evaluation after the first. A rank with another rate
    than its neighbour would leave it, and with it the weights of one process.
    """
    spec = SPEC | {
        "optimizer": {"type": "sgd", "lr": 1.0},
        "schedule": {"type": "plateau", "factor": 0.5, "patience": 1, "threshold": 1e6, "threshold_mode": "abs"},
    }
    spread = spec | {"distributed": {"strategy": "ddp", "processes_per_node": 2}}
    alone = trained(nursery, tmp_path / "alone", spec)
    whole = trained(nursery, tmp_path / "whole", spread, 2)
    assert _logged(alone) == _logged(whole) == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.125]
    falls = [(event.step, event.data["to"]) for event in events(whole) if isinstance(event, Notice)]
    assert falls == [(3, 0.5), (5, 0.25), (7, 0.125)]
    one, two = _weights(alone), _weights(whole)
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=0, atol=2e-5, err_msg=name)
    again = workspace(tmp_path / "again", spread, **blobs())
    shutil.copytree(whole / "checkpoints" / "step-00000004", again / "checkpoints" / "step-00000004")
    assert nursery.run(again, 2) == [0, 0], log(again)
    assert _logged(again) == [0.5, 0.25, 0.25, 0.125]
    assert same_bits(*(final_checkpoint(home) / "model.safetensors" for home in (whole, again)))
