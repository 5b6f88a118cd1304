"""Weights that wait in the host's memory: gathered, averaged, clipped, saved and resumed as those that stay."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from stoker.plan import plan
from tests.support.plan_cases import Json, language, resolved, text
from tests.support.trainer_runs import Nursery, blobs, final_checkpoint, log, same_bits, series, trained, workspace

SPEC: Json = {
    "task": {"type": "classification"},
    "model": {"type": "mlp", "hidden_sizes": [33, 20]},
    "data": {"source": {"type": "arrays", "dataset": "set@1"}, "split": {"validation": 0.2, "test": 0.1}},
    "optimizer": {"type": "adamw", "lr": 0.004},
    "training": {"max_steps": 8, "batch_size": 32, "gradient_clipping": {"type": "norm", "max_norm": 0.1}, "ema": {"decay": 0.9}},
    "evaluation": {"interval": {"steps": 4}},
    "logging": {"interval": {"steps": 1}},
    "checkpoint": {"interval": {"steps": 5}},
}


def _train(nursery: Nursery, home: Path, offload: str) -> Path:
    how = {"strategy": "fsdp", "processes_per_node": 2, "offload": offload}
    return trained(nursery, home, SPEC | {"distributed": how}, 2)


def test_the_run_is_the_same_to_the_bit_and_goes_on_from_its_checkpoint(nursery: Nursery, tmp_path: Path) -> None:
    """On a CPU, where nothing has to move: what the policy computes, beside what is computed without it."""
    stays, waits = _train(nursery, tmp_path / "stays", "none"), _train(nursery, tmp_path / "waits", "parameters")
    assert series(waits) == series(stays)
    shutil.rmtree(final_checkpoint(waits))
    assert nursery.run(waits, 2) == [0, 0], log(waits)
    assert same_bits(final_checkpoint(waits) / "model.safetensors", final_checkpoint(stays) / "model.safetensors")


def test_a_gpu_needs_less_for_weights_that_wait_and_the_host_has_them() -> None:
    def planned(**how: Any) -> Any:
        spec = language(
            {"num_layers": 24, "hidden_size": 1024, "num_heads": 8},
            length=64,
            training={"max_steps": 2, "batch_size": 8},
            resources={"device": "cuda"},
            distributed={"strategy": "fsdp", "processes_per_node": 2, **how},
        )
        return plan(resolved(spec, text(100_000)), text(100_000), device_bytes=3 << 30)

    stays, waits = planned(), planned(offload="parameters")
    state = waits.memory.weights_bytes + waits.memory.gradients_bytes + waits.memory.optimizer_bytes
    assert stays.memory.device_bytes is None
    assert waits.memory.rank_bytes == stays.memory.rank_bytes
    assert waits.memory.device_bytes <= waits.memory.rank_bytes - state / 2
    assert waits.memory.device_bytes >= 2 * waits.memory.weights_bytes  # each begins with the whole model on its GPU
    assert (stays.fits, waits.fits) == (False, True)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="two ranks need a GPU each")
def test_memory_of_gpus_falls_and_the_result_is_equal(nursery: Nursery, tmp_path: Path) -> None:
    """Not run where there are no GPUs."""
    peaks, losses = {}, {}
    for offload in ("none", "parameters"):
        how = {"strategy": "fsdp", "processes_per_node": 2, "offload": offload}
        wide = SPEC | {"distributed": how, "resources": {"device": "cuda"}, "model": {"type": "mlp", "hidden_sizes": [2048] * 8}}
        home = workspace(tmp_path / offload, wide, **blobs())
        inject = (
            "import os, pathlib, torch\nfrom worker.trainer.runtime.journal import Journal\n"
            "def close(self, close=Journal.close):\n"
            f"    pathlib.Path({str(home)!r}, 'peak-' + os.environ['RANK']).write_text(str(torch.cuda.max_memory_allocated()))\n"
            "    close(self)\nJournal.close = close\n"
        )
        assert nursery.run(home, 2, inject) == [0, 0], log(home)
        peaks[offload] = int((home / "peak-0").read_text())
        losses[offload] = [value for (_, key), value in series(home).items() if key == "train/loss"]
    assert peaks["parameters"] < 0.8 * peaks["none"]
    assert losses["parameters"] == pytest.approx(losses["none"], rel=1e-4)
