"""Runs that Horovod carries, in the environment of its worker image: `make horovod-test`. Not part of `make test`."""

import json
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stoker.document.load import load_file
from stoker.events import Started
from tests.support.data import digits_csv, upload
from tests.support.same_runs import Alone, assert_near, assert_same_bits, differences, killed_twice
from tests.support.stack import Stack
from tests.support.strategy_pairs import FEATURES, document, published
from tests.support.trainer_runs import (
    Nursery,
    blobs,
    events,
    final_checkpoint,
    finished,
    log,
    same_bits,
    trained,
    workspace,
)

TABLE = published()
REFUSED = ("bf16_pure",)
"""Horovod has no bfloat16 for PyTorch."""
TWO = {"strategy": "horovod", "processes_per_node": 2}
EXAMPLE = Path(__file__).parents[3] / "examples" / "images" / "horovod.yaml"
JOB: dict[str, Any] = {
    "task": {"type": "classification"},
    # 3.2 MB of gradients
    "model": {"type": "mlp", "hidden_sizes": [512, 1024], "dropout": 0.1, "normalization": {"type": "batch"}},
    "data": {"source": {"type": "arrays", "dataset": "set@1"}, "split": {"validation": 0.2, "test": 0.1}},
    "optimizer": {"type": "adamw", "lr": 0.004},
    "training": {"max_steps": 60, "batch_size": 36, "gradient_accumulation_steps": 2},
    "evaluation": {"interval": {"steps": 13}},
    "logging": {"interval": {"steps": 3}},
    "checkpoint": {"interval": {"steps": 7}},
}
SMALL_BUCKETS = "import worker.trainer.distributed.gradients as g; g.BUCKET_BYTES = 1 << 18"
COUNTING = """
import horovod.torch as h, os
real = h.allreduce_async_
def counted(tensor, **more):
    with open(os.environ["COUNT"] + os.environ["RANK"], "a") as file:
        file.write(f"{tensor.numel()}\\n")
    return real(tensor, **more)
h.allreduce_async_ = counted
"""


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(scope="module")
def alone(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    return Alone(nursery, tmp_path_factory.mktemp("alone"))


@pytest.mark.proves("DIST-05", cases=["decoder"])
@pytest.mark.parametrize("feature", [name for name in FEATURES if name not in REFUSED and (name, "ddp") in TABLE])
def test_two_ranks_compute_what_one_process_computes(feature: str, nursery: Nursery, alone: Alone, tmp_path: Path) -> None:
    """To the tolerance that is published for ddp: 1e-6 in fp32."""
    home = trained(nursery, tmp_path / "run", document(feature, None) | {"distributed": TWO}, 2)
    if (cell := TABLE[feature, "ddp"]) != "runs":
        assert_near(alone(document(feature, None)), home, float(cell))


@pytest.mark.proves("DIST-05")
def test_horovod_carries_every_gradient_once_a_step(nursery: Nursery, tmp_path: Path) -> None:
    spec = JOB | {"distributed": TWO, "training": {"max_steps": 5, "batch_size": 32, "gradient_accumulation_steps": 4}}
    home = workspace(tmp_path / "run", spec, **blobs())
    count = tmp_path / "count-"
    assert nursery.run(home, 2, f"{COUNTING}\nos.environ['COUNT'] = {str(count)!r}") == [0, 0], log(home)
    started = next(event for event in events(home) if isinstance(event, Started))
    for rank in "01":
        assert (Path(f"{count}{rank}")).read_text().split() == [str(started.parameters)] * 5


@pytest.mark.proves("DIST-05", cases=["3"])
@pytest.mark.parametrize("ranks", [2, 3])
def test_a_killed_run_goes_on_to_the_bit(ranks: int, nursery: Nursery, tmp_path: Path) -> None:
    """With three ranks the order of additions shows, with many small messages under way at once."""
    spec = JOB | {"distributed": TWO | {"processes_per_node": ranks}}
    whole, broken = (workspace(tmp_path / name, spec, **blobs()) for name in ("whole", "broken"))
    assert nursery.run(whole, ranks, SMALL_BUCKETS) == [0] * ranks, log(whole)
    draw = random.Random(ranks)
    killed_twice(nursery, broken, ranks, (draw.randrange(8, 40), draw.randrange(8, 40)), SMALL_BUCKETS)
    assert_same_bits(whole, broken, but=frozenset({"ranks.safetensors"}))


def test_ranks_of_two_nodes_meet(nursery: Nursery, tmp_path: Path) -> None:
    """With one rank on each, as Horovod sees it. The same bits as on one node."""
    one, two = (workspace(tmp_path / name, JOB | {"distributed": TWO}, **blobs()) for name in ("one", "two"))
    assert nursery.run(one, 2) == [0, 0], log(one)
    assert nursery.run(two, 2, "import os; os.environ['LOCAL_WORLD_SIZE'] = '1'") == [0, 0], log(two)
    assert same_bits(final_checkpoint(one) / "model.safetensors", final_checkpoint(two) / "model.safetensors")


PLAIN = JOB | {"model": {"type": "mlp", "hidden_sizes": [16]}, "training": {"max_steps": 30, "batch_size": 32}}
"""Nothing in it is drawn by each rank for itself."""


def _off(one: Path, other: Path) -> float:
    """The largest difference of any weight or moment of two runs' last checkpoints."""
    return max(max(differences(one, other, file).values()) for file in ("model.safetensors", "optimizer.safetensors"))


def test_a_checkpoint_is_that_of_one_process_and_goes_on_in_one(nursery: Nursery, tmp_path: Path) -> None:
    single, horovod, moved = (workspace(tmp_path / name, PLAIN, **blobs()) for name in ("single", "horovod", "moved"))
    assert nursery.run(single) == [0], log(single)
    for home in (horovod, moved):
        (home / "spec.json").write_text(json.dumps(PLAIN | {"distributed": TWO}))
    assert nursery.run(horovod, 2) == [0, 0], log(horovod)
    assert _off(single, horovod) <= 1e-6
    running = nursery.start(moved, 2)
    running.reached(15)
    running.signal(signal.SIGKILL)
    running.wait()
    (moved / "spec.json").write_text(json.dumps(PLAIN))
    assert nursery.run(moved) == [0], log(moved)
    assert any(isinstance(event, Started) and event.step > 0 for event in events(moved)), "no attempt resumed"
    assert _off(single, moved) <= 1e-6


def test_a_lost_rank_ends_the_others(nursery: Nursery, tmp_path: Path) -> None:
    spec = JOB | {"distributed": TWO, "training": {"max_steps": 100_000, "batch_size": 32}}
    home = workspace(tmp_path / "run", spec, **blobs())
    running = nursery.start(home, 2)
    running.reached(5)
    running.signal(signal.SIGKILL, [1])
    assert running.wait() == [1, -9]
    assert finished(home).reason == "rank_lost", finished(home)


@pytest.mark.proves("DIST-05")
def test_a_job_for_horovod_trains_through_the_whole_system(tmp_path: Path) -> None:
    """Submitted over HTTP, placed on a worker that says it has Horovod, its ranks started by an agent."""
    stack = Stack(tmp_path, f"sqlite:///{tmp_path}/stoker.db")
    try:
        stack.start()
        upload(stack, "digits", {"digits.csv": digits_csv()})
        assert stack.get("/v1/workers")["data"][0]["capacity"]["backends"] == ["horovod"]
        job = stack.wait(stack.submit(dict(load_file(EXAMPLE).value)), timeout=200)
        assert job["state"] == "succeeded", stack.story(job["id"])
        assert job["metrics"]["test/accuracy"] > 0.8
        assert job["resources"]["backends"] == ["horovod"]
    finally:
        stack.stop()
