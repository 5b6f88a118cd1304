"""Steps that are not to be trusted: skipped, rolled back or told of, as an independent simulation of the same policy says."""

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stoker.events import Notice
from tests.support.same_runs import interrupted
from tests.support.trainer_runs import Nursery, events, final_checkpoint, finished, log, same_bits, series, tensors, workspace

ROWS, FEATURES, BATCH = 40, 6, 8
SPEC: dict[str, Any] = {
    "task": {"type": "regression"},
    "model": {"type": "mlp", "hidden_sizes": []},
    "data": {
        "source": {"type": "arrays", "dataset": "set@1"},
        "split": {"strategy": "contiguous", "validation": 0, "test": 0},
        "loader": {"shuffle": False},
    },
    "optimizer": {"type": "sgd", "lr": 0.05, "momentum": 0.9},
    "training": {"epochs": 4, "batch_size": BATCH},
    "logging": {"interval": {"steps": 1}},
    "checkpoint": {"interval": {"steps": 1000}, "keep_best": 0},
}


def rows(**far_out: float) -> dict[str, np.ndarray[Any, Any]]:
    """Numbers that a line explains; `row27=1e30` is a target in the fourth of five batches."""
    draw = np.random.default_rng(3)
    x = draw.normal(size=(ROWS, FEATURES)).astype(np.float32)
    y = (x @ draw.normal(size=(FEATURES, 1)) + 0.1 * draw.normal(size=(ROWS, 1))).astype(np.float32)
    for name, value in far_out.items():
        y[int(name.removeprefix("row"))] = value
    return {"x": x, "y": y}


def _run(nursery: Nursery, home: Path, spec: dict[str, Any], data: Any, codes: int = 0, ranks: int = 1) -> Path:
    if ranks > 1:
        spec = spec | {"distributed": {"strategy": "ddp", "processes_per_node": ranks}}
    workspace(home, spec, **data)
    assert nursery.run(home, ranks) == [codes] * ranks, log(home)
    return home


def notices(home: Path, code: str) -> list[Notice]:
    return [event for event in events(home) if isinstance(event, Notice) and event.code == code]


def _weights(home: Path, step: int) -> list[torch.Tensor]:
    found = tensors(home / f"checkpoints/step-{step:08d}" / "model.safetensors")
    weight = next(value for value in found.values() if value.ndim == 2)
    bias = next(value for value in found.values() if value.ndim == 1)
    return [weight.clone(), bias.clone()]


def _start(nursery: Nursery, home: Path) -> list[torch.Tensor]:
    """The weights that every run of the spec begins with: a run that goes back saves them."""
    spec = SPEC | {"training": {"max_steps": 1, "batch_size": BATCH}, "debug": {"nan_policy": {"type": "rollback"}}}
    return _weights(_run(nursery, home, spec, rows()), 0)


class Simulated:
    """The same training in plain torch, with a policy on gradients written down again."""

    def __init__(self, start: list[torch.Tensor], lr: float = 0.05) -> None:
        self.params = [value.clone().requires_grad_() for value in start]
        self.optimizer = torch.optim.SGD(self.params, lr=lr, momentum=0.9)

    def gradients(self, data: dict[str, np.ndarray[Any, Any]], step: int) -> tuple[float, float]:
        """Leaves gradients; the loss and the norm."""
        at = step * BATCH % ROWS
        x, y = (torch.from_numpy(data[name][at : at + BATCH]) for name in "xy")
        self.optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(x @ self.params[0].T + self.params[1], y)
        loss.backward()
        return loss.item(), float(
            torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in self.params if p.grad is not None]))
        )


@pytest.mark.proves("DBG-02")
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_step_that_is_no_number_is_skipped_on_every_rank(ranks: int, nursery: Nursery, tmp_path: Path) -> None:
    data, debug = rows(row27=1e30), {"nan_policy": {"type": "skip_step", "max_skips": 1}}
    home = _run(nursery, tmp_path / "run", SPEC | {"debug": debug}, data, ranks=ranks)
    expected, losses = Simulated(_start(nursery, tmp_path / "start")), {}
    for step in range(20):
        loss, norm = expected.gradients(data, step)
        if np.isfinite(loss) and np.isfinite(norm):
            expected.optimizer.step()
            losses[step + 1] = loss
    for mine, reference in zip(_weights(home, 20), expected.params, strict=True):
        torch.testing.assert_close(mine, reference.detach(), rtol=0, atol=2e-6)
    got = {step: value for (step, key), value in series(home).items() if key == "train/loss"}
    assert got.keys() == losses.keys() == set(range(1, 21)) - {4, 9, 14, 19}
    assert [got[step] for step in got] == pytest.approx([losses[step] for step in got], rel=1e-4)
    assert [notice.step for notice in notices(home, "step_skipped")] == [4, 9, 14, 19]
    assert [series(home)[step, "train/skipped_steps"] for step in (3, 4, 20)] == [0, 1, 4]


def test_weights_stay_as_they_are_in_a_skipped_step(nursery: Nursery, tmp_path: Path) -> None:
    debug = {"nan_policy": {"type": "skip_step"}}
    spec = SPEC | {
        "debug": debug,
        "training": {"max_steps": 4, "batch_size": BATCH},
        "checkpoint": {"interval": {"steps": 1}, "keep_best": 0},
    }
    home = _run(nursery, tmp_path / "run", spec, rows(row27=1e30))
    for name in ("model", "optimizer"):
        assert same_bits(
            home / f"checkpoints/step-00000003/{name}.safetensors", home / f"checkpoints/step-00000004/{name}.safetensors"
        )


def test_too_many_skipped_steps_end_the_run(nursery: Nursery, tmp_path: Path) -> None:
    data = rows(row9=1e30, row17=1e30, row25=1e30)
    debug = {"nan_policy": {"type": "skip_step", "max_skips": 2}}
    home = _run(nursery, tmp_path / "run", SPEC | {"debug": debug}, data, codes=3)
    assert (finished(home).reason, finished(home).step) == ("nan_loss", 3)
    assert "at step 4, and 2 steps before it were skipped" in finished(home).message


DIVERGES = SPEC | {
    "optimizer": {"type": "sgd", "lr": 3000.0, "momentum": 0.9},
    "training": {"max_steps": 60, "batch_size": BATCH},
    "checkpoint": {"interval": {"steps": 3}, "keep_best": 0},
    "debug": {"nan_policy": {"type": "rollback", "lr_factor": 1e-5, "max_rollbacks": 1}},
}


def _rolled_back(start: list[torch.Tensor]) -> tuple[Simulated, int, int]:
    """The simulation of a divergence, a step back to a multiple of three, and a lower learning rate from there."""
    data, saved, step, failed = rows(), None, 0, 0
    run = Simulated(start, 3000.0)
    while step < 60:
        loss, norm = run.gradients(data, step)
        if not (np.isfinite(loss) and np.isfinite(norm)):
            assert saved is not None
            failed, (step, weights, moments) = step, saved
            for param, value, moment in zip(run.params, weights, moments, strict=True):
                param.data.copy_(value)
                run.optimizer.state[param]["momentum_buffer"].copy_(moment)
            run.optimizer.param_groups[0]["lr"] *= 1e-5
            continue
        run.optimizer.step()
        step += 1
        if step % 3 == 0 and not failed:
            moments = [run.optimizer.state[param]["momentum_buffer"].clone() for param in run.params]
            saved = step, [param.detach().clone() for param in run.params], moments
    assert saved is not None
    return run, failed, saved[0]


@pytest.mark.proves("DBG-02")
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_that_diverges_goes_back_and_on_more_slowly(ranks: int, nursery: Nursery, tmp_path: Path) -> None:
    home = _run(nursery, tmp_path / "run", DIVERGES, rows(), ranks=ranks)
    expected, failed, back = _rolled_back(_start(nursery, tmp_path / "start"))
    for mine, reference in zip(_weights(home, 60), expected.params, strict=True):
        torch.testing.assert_close(mine, reference.detach(), rtol=1e-3, atol=1e-6 * float(reference.detach().abs().max()))
    told = notices(home, "rolled_back")
    assert [(notice.step, notice.data) for notice in told] == [
        (back, {"from": failed, "to": back, "rollbacks": 1, "factor": 1e-5})
    ]
    rates = {step: value for (step, key), value in series(home).items() if key == "train/lr"}
    assert [rates[step] for step in (back, back + 1, 60)] == pytest.approx([3000, 0.03, 0.03])
    assert finished(home).reason == "completed"


def test_a_run_goes_on_after_a_rollback_as_if_nothing_had_stopped_it(nursery: Nursery, tmp_path: Path) -> None:
    whole = _run(nursery, tmp_path / "whole", DIVERGES, rows())
    (rollback,) = notices(whole, "rolled_back")
    updates = rollback.data["from"] + 10
    home = interrupted(nursery, workspace(tmp_path / "stopped", DIVERGES, **rows()), 1, (updates, signal.SIGTERM))
    assert len(notices(home, "rolled_back")) == 1
    for name in ("model", "optimizer"):
        assert same_bits(*(final_checkpoint(run) / f"{name}.safetensors" for run in (whole, home)))
    assert series(whole) == series(home)


def test_rollbacks_that_do_not_help_end_the_run(nursery: Nursery, tmp_path: Path) -> None:
    debug = {"nan_policy": {"type": "rollback", "max_rollbacks": 2}}
    home = _run(nursery, tmp_path / "run", SPEC | {"debug": debug}, rows(row27=1e30), codes=3)
    assert [notice.step for notice in notices(home, "rolled_back")] == [0, 0], "no checkpoint but that of the start"
    assert (finished(home).reason, "2 rollbacks did not help" in finished(home).message) == ("nan_loss", True)


@pytest.mark.parametrize("watch", ["loss", "gradient_norm"])
def test_a_spike_is_a_multiple_of_the_median(watch: str, nursery: Nursery, tmp_path: Path) -> None:
    data = rows(row27=80.0)
    spike = {"watch": watch, "window": 8, "threshold": 2.5, "policy": {"type": "skip_step"}}
    home = _run(nursery, tmp_path / "run", SPEC | {"debug": {"spike": spike}}, data)
    expected, usual, skipped = Simulated(_start(nursery, tmp_path / "start")), list[float](), list[int]()
    for step in range(20):
        value = expected.gradients(data, step)[0 if watch == "loss" else 1]
        if len(usual) >= 8 and value > 2.5 * float(np.median(usual[-8:])):
            skipped.append(step + 1)
            continue
        usual.append(value)
        expected.optimizer.step()
    assert skipped, "the simulation has something to skip"
    assert [notice.step for notice in notices(home, "step_skipped")] == skipped
    for mine, reference in zip(_weights(home, 20), expected.params, strict=True):
        torch.testing.assert_close(mine, reference.detach(), rtol=1e-4, atol=1e-5)


def test_a_spike_may_only_be_told_of(nursery: Nursery, tmp_path: Path) -> None:
    spike = {"watch": "loss", "window": 8, "threshold": 15.0}
    plain = _run(nursery, tmp_path / "plain", SPEC, rows(row27=80.0))
    home = _run(nursery, tmp_path / "run", SPEC | {"debug": {"spike": spike}}, rows(row27=80.0))
    assert notices(home, "spike")
    assert same_bits(final_checkpoint(plain) / "model.safetensors", final_checkpoint(home) / "model.safetensors")
