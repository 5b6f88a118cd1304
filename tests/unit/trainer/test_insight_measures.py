"""Peaks, FLOPs and memory, each against what somebody else says."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from worker.trainer.measure.figures import Performance
from worker.trainer.measure.flops import MetaModel, cost_of
from worker.trainer.measure.peaks import peak_tflops
from worker.trainer.measure.stopwatch import PARTS, Stopwatch
from worker.trainer.runtime.world import World


@pytest.mark.parametrize(
    ("device", "mode", "peak"),
    [
        ("NVIDIA H200", "bf16_mixed", 989.4),
        ("NVIDIA H100 80GB HBM3", "bf16_mixed", 989.4),
        ("NVIDIA H100 PCIe", "bf16_pure", 756.0),
        ("NVIDIA A100-SXM4-80GB", "tf32", 156.0),
        ("NVIDIA GeForce RTX 4090", "fp16_mixed", 165.2),
        ("Tesla V100-SXM2-16GB", "fp32", 15.7),
        ("Tesla V100-SXM2-16GB", "bf16_mixed", None),
        ("NVIDIA GH200 480GB", "bf16_mixed", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bf16_mixed", None),
    ],
)
def test_peaks_are_those_of_the_data_sheets(device: str, mode: str, peak: float | None) -> None:
    assert peak_tflops(device, mode) == peak


class LastState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(3, 5, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.cells(x)[0][:, -1]
        return out


def test_flops_by_hand() -> None:
    """2 per multiply-add; backward twice the forward, less what nothing before the first layer asks for."""
    linear = nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3))
    assert cost_of(MetaModel(linear, torch.zeros(1, 7)))() == 2 * (7 * 5 * 2 + 5 * 3 * 3)
    frozen = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3))
    frozen[0].requires_grad_(False)
    assert cost_of(MetaModel(frozen, torch.zeros(1, 7)))() == 2 * (7 * 5 + 5 * 3 * 2)
    steps = 4
    forward = 2 * 4 * 5 * (3 + 5) * steps
    count = cost_of(MetaModel(LastState(), torch.zeros(1, steps, 3)))()
    assert count is not None
    assert forward < count <= 3 * forward


def test_counting_leaves_the_model_alone_and_gives_up_on_one_that_needs_numbers() -> None:
    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.layer(x) * float(x.sum())
            return out

    model = Moody()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert cost_of(MetaModel(model, torch.zeros(1, 2)))() is None
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.device.type == "cpu" for p in model.parameters())


@pytest.mark.proves("LOG-04")
def test_memory_is_what_the_system_says() -> None:
    alone = World(0, 1, torch.device("cpu"), 0, 1)
    values = Performance(Stopwatch(), alone, unit="samples", flops=lambda: None, peak_tflops=None).read(1, 1)
    high = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert high is not None
    assert values["train/memory_gb"] == pytest.approx(int(high[1]) / 2**20, rel=0.05)
    assert "train/tflops_per_second" not in values


def test_time_within_time_belongs_to_the_inner_part() -> None:
    ticks = iter([0.0, 1.0, 3.0, 6.0, 10.0, 15.0, 15.0])
    watch = Stopwatch(lambda: next(ticks))
    watch.start(3)  # at 1
    with watch.during("evaluation"), watch.during("checkpoint"):  # at 3 and 6, left at 10 and 15
        pass
    assert watch.read() == dict.fromkeys(PARTS, 0.0) | {"startup": 1.0, "compute": 2.0, "evaluation": 8.0, "checkpoint": 4.0}
    assert watch.first == 3
