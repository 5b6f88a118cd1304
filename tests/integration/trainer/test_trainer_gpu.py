"""The same job on a CPU and on a GPU; not run where there is none."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.trainer_runs import Nursery, blobs, log, series, workspace

SPEC: dict[str, Any] = {
    "task": {"type": "classification"},
    "model": {"type": "mlp", "hidden_sizes": [64, 32], "normalization": {"type": "layer"}},
    "data": {"source": {"type": "arrays", "dataset": "set@1"}, "split": {"validation": 0.2}},
    "optimizer": {"type": "adamw", "lr": 0.001},
    "training": {"max_steps": 30, "batch_size": 32, "micro_batch_size": 8},
    "evaluation": {"interval": {"steps": 10}},
    "logging": {"interval": {"steps": 1}},
    "checkpoint": {"interval": {"steps": 50}},
}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_losses_in_fp32_are_those_of_a_cpu(nursery: Nursery, tmp_path: Path) -> None:
    found = {}
    for device in ("cpu", "cuda"):
        home = workspace(tmp_path / device, SPEC | {"resources": {"device": device}}, **blobs())
        assert nursery.run(home) == [0], log(home)
        found[device] = {at: value for at, value in series(home).items() if at[1] in ("train/loss", "validation/loss")}
    assert len(found["cpu"]) >= 33
    assert found["cuda"] == pytest.approx(found["cpu"], abs=1e-4)
