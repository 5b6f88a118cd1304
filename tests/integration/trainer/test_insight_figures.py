"""How fast a run says it is, against counts and clocks of our own."""

import json
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stoker.events import Metrics, Phase
from tests.support.trainer_runs import Nursery, blobs, events, final_checkpoint, log, series, workspace
from worker.trainer.predict import load

MLP: dict[str, Any] = {
    "task": {"type": "classification"},
    "model": {"type": "mlp", "hidden_sizes": [64, 32], "normalization": {"type": "batch"}},
    "data": {"source": {"type": "arrays", "dataset": "set@1"}, "split": {"validation": 0.2, "test": 0.2}},
    "training": {"epochs": 60, "batch_size": 16},
    "evaluation": {"interval": {"epochs": 10}},
    "checkpoint": {"interval": {"epochs": 10}},
}
STACK = [
    {"type": "conv", "channels": 4, "kernel_size": 2, "groups": 1},
    {"type": "norm", "kind": "batch"},
    {"type": "activation", "kind": "relu"},
    {"type": "flatten"},
    {"type": "linear", "units": 4},
]
DECODER = {
    "type": "transformer_decoder",
    "num_layers": 2,
    "hidden_size": 32,
    "num_heads": 4,
    "num_kv_heads": 2,
    "gated_ffn": True,
}
TEXT: dict[str, Any] = {
    "task": {"type": "causal_lm"},
    "model": DECODER | {"position": {"type": "rope"}},
    "data": {"source": {"type": "text", "dataset": "set@1"}, "tokenizer": {"type": "char"}, "sequence": {"length": 16}},
    "training": {"max_steps": 4, "batch_size": 8},
}


def spent(home: Path) -> list[dict[str, Any]]:
    attempts: list[dict[str, Any]] = json.loads((home / "artifacts" / "timing.json").read_text())["attempts"]
    return attempts


@pytest.mark.proves("LOG-03")
def test_the_parts_of_the_time_are_the_whole_of_it(nursery: Nursery, tmp_path: Path) -> None:
    home = workspace(tmp_path / "run", MLP | {"logging": {"timing": True}}, **blobs(800))
    assert nursery.run(home) == [0], log(home)
    (attempt,), said = spent(home), [event for event in events(home) if isinstance(event, Phase)]
    whole = (home / "artifacts" / "timing.json").stat().st_mtime - said[0].t
    assert sum(attempt["seconds"].values()) == pytest.approx(attempt["wall_seconds"], abs=1e-3)
    assert sum(attempt["seconds"].values()) == pytest.approx(whole, rel=0.02, abs=0.1), "by the clock of the journal"
    between = {name: 0.0 for name in ("evaluating", "checkpointing")}
    for phase, after in pairwise(said):
        if phase.name in between:
            between[phase.name] += after.t - phase.t
    assert attempt["seconds"]["evaluation"] >= 0.9 * between["evaluating"] > 0
    assert attempt["seconds"]["checkpoint"] >= 0.9 * between["checkpointing"] > 0
    rows = [event.values for event in events(home) if isinstance(event, Metrics) and "train/loss" in event.values]
    for part in ("data", "forward", "compute"):
        reported = sum(row[f"train/{part}_seconds"] for row in rows)
        assert reported == pytest.approx(attempt["seconds"][part], rel=0.05, abs=0.02), part


@pytest.mark.proves("LOG-03")
def test_each_attempt_has_its_own_times(nursery: Nursery, tmp_path: Path) -> None:
    spec = MLP | {"logging": {"timing": True}, "training": {"epochs": 100_000, "batch_size": 16}}
    home = workspace(tmp_path / "run", spec, **blobs(100))
    running = nursery.start(home)
    running.reached(20)
    running.signal(signal.SIGTERM)
    assert running.wait() == [75], log(home)
    stopped = spent(home)[0]["to_step"]
    (home / "spec.json").write_text(json.dumps(spec | {"training": {"max_steps": stopped + 5, "batch_size": 16}}))
    assert nursery.run(home) == [0], log(home)
    first, second = spent(home)
    assert (first["from_step"], second["from_step"], second["to_step"]) == (0, stopped, stopped + 5)


def counted(model: nn.Module, inputs: torch.Tensor) -> float:
    """FLOPs of forward and backward, per sample."""
    model.train()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(inputs).sum().backward()
    return counter.get_total_flops() / len(inputs)


def check_mfu(home: Path, inputs: torch.Tensor, *, unit: str, per_sample: int, ranks: int, peak: float) -> None:
    flops = counted(load(final_checkpoint(home)).model, inputs) / per_sample
    rows = [event.values for event in events(home) if isinstance(event, Metrics) and "train/loss" in event.values]
    assert rows
    for row in rows:
        expected = flops * row[f"train/{unit}_per_second"]
        assert row["train/tflops_per_second"] == pytest.approx(expected / 1e12, rel=1e-9)
        assert row["train/mfu"] == pytest.approx(expected / (peak * 1e12 * ranks), rel=1e-9)


@pytest.mark.proves("LOG-04")
@pytest.mark.parametrize("model", [MLP["model"], {"type": "layers", "layers": STACK}], ids=["mlp", "conv"])
def test_utilisation_is_that_of_counted_flops(nursery: Nursery, tmp_path: Path, model: dict[str, Any]) -> None:
    many = {"distributed": {"strategy": "ddp", "processes_per_node": 2}} if model["type"] == "mlp" else {}
    spec = MLP | {"model": model, "training": {"epochs": 2, "batch_size": 16}, "logging": {"peak_tflops": 0.25}} | many
    data = blobs()
    x = data["x"] if model["type"] == "mlp" else data["x"].reshape(-1, 1, 3, 4)
    home = workspace(tmp_path / "run", spec, x=x, y=data["y"])
    assert set(nursery.run(home, 2 if many else 1)) == {0}, log(home)
    check_mfu(home, torch.from_numpy(x[:7]), unit="samples", per_sample=1, ranks=2 if many else 1, peak=0.25)


@pytest.mark.proves("LOG-04")
def test_utilisation_of_a_language_model_is_per_token(nursery: Nursery, tmp_path: Path) -> None:
    home = workspace(tmp_path / "run", TEXT | {"logging": {"peak_tflops": 2.0, "interval": {"steps": 2}}})
    (home / "data" / "set@1" / "text.txt").write_text("the cat sat on the mat. a dog ran to the cat.\n" * 50)
    assert nursery.run(home) == [0], log(home)
    check_mfu(home, torch.zeros(3, 16, dtype=torch.long), unit="tokens", per_sample=16, ranks=1, peak=2.0)


def test_ranks_are_compared_and_figures_can_be_left_out(nursery: Nursery, tmp_path: Path) -> None:
    spec = MLP | {"distributed": {"strategy": "ddp", "processes_per_node": 2}, "training": {"epochs": 2, "batch_size": 16}}
    home, plain = workspace(tmp_path / "run", spec, **blobs()), workspace(tmp_path / "plain", spec, **blobs())
    (plain / "spec.json").write_text(json.dumps(spec | {"logging": {"performance": False}}))
    assert nursery.run(home, 2) == [0, 0], log(home)
    assert nursery.run(plain, 2) == [0, 0], log(plain)
    rows = [event.values for event in events(home) if isinstance(event, Metrics) and "train/loss" in event.values]
    for row in rows:
        assert row["train/step_seconds_min"] <= row["train/step_seconds"] <= row["train/step_seconds_max"]
        assert 0 < row["train/own_seconds_min"] <= row["train/own_seconds_max"] <= row["train/step_seconds_max"]
        assert 0 <= row["train/data_wait_share"] < 1
        assert "train/mfu" not in row, "no data sheet speaks for a CPU"
    assert series(home) == series(plain), "measuring changes nothing"
    measured = {key for event in events(plain) if isinstance(event, Metrics) for key in event.values}
    assert measured == {key for _, key in series(plain)}
