"""Runs of `resources.device: tpu` in the environment of its worker image, on torch_xla's CPU: `make xla-test`. Not part of
`make test`.
"""

import json
import os
import random
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stoker.document.load import load_file
from stoker.events import Started
from tests.support.data import digits_csv, upload
from tests.support.same_runs import assert_same_bits, killed_twice
from tests.support.stack import Stack
from tests.support.strategy_pairs import FEATURES, document, published
from tests.support.trainer_runs import (
    Nursery,
    blobs,
    events,
    final_checkpoint,
    finished,
    log,
    series,
    tensors,
    trained,
    workspace,
)

TABLE = published()
REFUSED = ("fp16_mixed", "activation checkpointing")
"""A TPU has no fp16, and its compiler keeps what is to be computed again."""
STEADY = {"batch normalization": {"optimizer": {"type": "sgd", "lr": 0.05}}}
"""The bias before a normalisation has no gradient but rounding, which AdamW makes steps of its full length of."""
EXAMPLE = Path(__file__).parents[3] / "examples" / "images" / "tpu.yaml"
TPU = {"resources": {"device": "tpu"}}
JOB: dict[str, Any] = TPU | {
    "task": {"type": "classification"},
    "model": {"type": "mlp", "hidden_sizes": [24, 16], "dropout": 0.2},
    "data": {
        "source": {"type": "arrays", "dataset": "set@1"},
        "split": {"validation": 0.2, "test": 0.1},
        "loader": {"drop_last": True},
    },
    "optimizer": {"type": "adamw", "lr": 0.004},
    "schedule": {"type": "cosine", "warmup_steps": 5},
    "training": {"max_steps": 60, "batch_size": 32},
    "evaluation": {"interval": {"steps": 13}},
    "logging": {"interval": {"steps": 3}},
    "checkpoint": {"interval": {"steps": 7}},
}
COMPILED = """
import os, worker.trainer.loop as loop
step = loop.step
def counted(run):
    from torch_xla.debug.metrics import metric_data
    step(run)
    with open(os.environ["COUNT"], "a") as file:
        file.write(f"{(metric_data('CompileTime') or (0,))[0]}\\n")
loop.step = counted
"""


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    before = os.environ.get("PJRT_DEVICE")
    os.environ["PJRT_DEVICE"] = "CPU"
    nursery = Nursery()
    yield nursery
    nursery.close()
    if before is None:
        del os.environ["PJRT_DEVICE"]


def biased(running: torch.Tensor, of: Mapping[str, torch.Tensor], job: Mapping[str, Any]) -> torch.Tensor:
    """A running variance as torch_xla keeps it: of n values it remembers the sum of squares over n, and eager PyTorch over n - 1."""
    steps, n = (
        next(int(value) for name, value in of.items() if name.endswith("num_batches_tracked")),
        job["training"]["batch_size"],
    )
    first = 0.9**steps
    return first + (running - first) * (n - 1) / n


@pytest.mark.proves("DIST-12", cases=["decoder"])
@pytest.mark.parametrize("feature", [name for name in FEATURES if name not in REFUSED and (name, "ddp") in TABLE])
def test_a_tpu_computes_what_eager_pytorch_computes(feature: str, nursery: Nursery, tmp_path: Path) -> None:
    """To the tolerance that is published for ddp: 1e-6 in fp32."""
    job = document(feature, None) | STEADY.get(feature, {})
    eager = trained(nursery, tmp_path / "eager", job | {"resources": {"device": "cpu"}})
    lazy = trained(nursery, tmp_path / "lazy", job | TPU)
    started = next(event for event in events(lazy) if isinstance(event, Started))
    assert started.device.startswith("xla")
    if (cell := TABLE[feature, "ddp"]) == "runs" and feature != "batch normalization":
        return
    tolerance = 1e-6 if cell == "runs" else float(cell)
    one, other = (tensors(final_checkpoint(home) / "model.safetensors") for home in (eager, lazy))
    assert one.keys() == other.keys()
    one = {name: biased(value, one, job) if name.endswith("running_var") else value for name, value in one.items()}
    off = {name: float((one[name].double() - other[name].double()).abs().max()) for name in one}
    assert max(off.values()) <= tolerance, off
    judged = ("train/loss",) if feature in STEADY else ("train/loss", "validation/loss", "test/loss")
    curves = [{key: value for key, value in series(home).items() if key[1] in judged} for home in (eager, lazy)]
    assert curves[0]
    assert curves[0].keys() == curves[1].keys()
    np.testing.assert_allclose(list(curves[1].values()), list(curves[0].values()), rtol=3 * tolerance, atol=0)


@pytest.mark.proves("DIST-12")
def test_a_killed_run_goes_on_to_the_bit(nursery: Nursery, tmp_path: Path) -> None:
    """With dropout, whose random numbers a TPU draws for itself."""
    whole, broken = (workspace(tmp_path / name, JOB, **blobs()) for name in ("whole", "broken"))
    assert nursery.run(whole) == [0], log(whole)
    draw = random.Random(1)
    killed_twice(nursery, broken, 1, (draw.randrange(8, 40), draw.randrange(8, 40)))
    assert_same_bits(whole, broken, but=frozenset({"ranks.safetensors"}))


def test_a_checkpoint_of_a_tpu_goes_on_anywhere(nursery: Nursery, tmp_path: Path) -> None:
    plain = JOB | {"model": {"type": "mlp", "hidden_sizes": [16]}}
    eager, moved = (
        workspace(tmp_path / name, plain | {"resources": {"device": "cpu"}}, **blobs()) for name in ("eager", "moved")
    )
    assert nursery.run(eager) == [0], log(eager)
    (moved / "spec.json").write_text(json.dumps(plain))
    running = nursery.start(moved)
    running.reached(20)
    running.signal(signal.SIGKILL)
    running.wait()
    (moved / "spec.json").write_text(json.dumps(plain | {"resources": {"device": "cpu"}}))
    assert nursery.run(moved) == [0], log(moved)
    assert any(isinstance(event, Started) and event.step > 0 for event in events(moved)), "no attempt resumed"
    one, other = (tensors(final_checkpoint(home) / "model.safetensors") for home in (eager, moved))
    assert max(float((one[key].double() - other[key].double()).abs().max()) for key in one) <= 2e-6


def test_steps_are_compiled_once(nursery: Nursery, tmp_path: Path) -> None:
    """Whatever changes from step to step - the learning rate, the count of steps - goes in as a number."""
    quiet = {"evaluation": {"interval": {"steps": 1000}}, "logging": {"interval": {"steps": 1000}}}
    home = workspace(tmp_path / "run", JOB | quiet | {"checkpoint": {"interval": {"steps": 1000}}}, **blobs())
    count = tmp_path / "count"
    assert nursery.run(home, 1, f"{COMPILED}\nos.environ['COUNT'] = {str(count)!r}") == [0], log(home)
    compiled = [int(line) for line in count.read_text().split()]
    assert len(compiled) == 60
    assert compiled[0] < compiled[5] == compiled[-1], compiled


def test_without_a_tpu_it_says_so(nursery: Nursery, tmp_path: Path) -> None:
    home = workspace(tmp_path / "run", JOB, **blobs())
    assert nursery.run(home, 1, "import os; del os.environ['PJRT_DEVICE']") == [2], log(home)
    assert finished(home).reason == "spec_error"
    assert "tpu" in finished(home).message


@pytest.mark.proves("DIST-12")
def test_a_job_for_a_tpu_trains_through_the_whole_system(nursery: Nursery, tmp_path: Path) -> None:
    """Submitted over HTTP, placed on a worker that offers one, its rank started by an agent."""
    stack = Stack(tmp_path, f"sqlite:///{tmp_path}/stoker.db")
    try:
        stack.start_broker()
        stack.start_server()
        stack.start_worker(STOKER_WORKER_TPUS="1")
        upload(stack, "digits", {"digits.csv": digits_csv()})
        job = stack.wait(stack.submit(dict(load_file(EXAMPLE).value)), timeout=200)
        assert job["state"] == "succeeded", stack.story(job["id"])
        assert job["metrics"]["test/accuracy"] > 0.8
        attempt = stack.get(f"/v1/jobs/{job['id']}/attempts")["data"][0]
        assert (attempt["devices"]["device"], attempt["devices"]["tpus"]) == ("tpu", 1)
    finally:
        stack.stop()
