"""A parameter server in step computes what one process computes; out of step, workers stay within their bound."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.support.same_runs import Alone, assert_same, assert_same_bits, differences, killed_twice
from tests.support.trainer_runs import Nursery, blobs, final_checkpoint, finished, log, series, trained, workspace

Json = dict[str, Any]

SPEC: Json = {
    "task": {"type": "classification"},
    "model": {"type": "mlp", "hidden_sizes": [24, 16]},
    "data": {"source": {"type": "arrays", "dataset": "set@1"}, "split": {"validation": 0.2, "test": 0.07}},
    "optimizer": {"type": "adamw", "lr": 0.003, "eps": 1e-5},
    # 148 training samples: the last batch of an epoch has 20
    "training": {"epochs": 4, "batch_size": 64, "gradient_clipping": {"type": "norm", "max_norm": 0.5}},
    "logging": {"interval": {"steps": 3}, "gradient_norm": True, "performance": False},
    "evaluation": {"interval": {"steps": 5}},
    "checkpoint": {"interval": {"steps": 4}},
}


def _spread(spec: Json, ranks: int, servers: int = 1, **consistency: Any) -> Json:
    spread = {"strategy": "parameter_server", "processes_per_node": ranks, "servers": servers}
    return spec | {"distributed": spread | ({"consistency": consistency} if consistency else {})}


@pytest.mark.proves("DIST-07")
@pytest.mark.parametrize(("workers", "servers"), [(2, 1), (2, 2)])
def test_in_step_it_is_one_process(workers: int, servers: int, nursery: Nursery, alone: Alone, tmp_path: Path) -> None:
    spec = SPEC | {"training": SPEC["training"] | {"micro_batch_size": 8}}
    apart = trained(nursery, tmp_path / "apart", _spread(spec, workers + servers, servers), workers + servers)
    assert_same(alone(SPEC), apart)
    off = differences(alone(SPEC), apart, "optimizer.safetensors")
    assert max(off.values()) <= 1e-6, off
    assert {finished(apart, rank).reason for rank in range(workers + servers)} == {"completed"}


@pytest.mark.proves("DIST-07")
def test_a_resumed_run_has_the_bits_of_the_uninterrupted(nursery: Nursery, tmp_path: Path) -> None:
    longer = SPEC | {"training": SPEC["training"] | {"epochs": 14}, "model": SPEC["model"] | {"dropout": 0.1}}
    spec, draw = _spread(longer, 3), random.Random("servers")
    whole = trained(nursery, tmp_path / "whole", spec, 3)
    broken = workspace(tmp_path / "broken", spec, **blobs())
    killed_twice(nursery, broken, 3, (draw.randrange(6, 30), draw.randrange(6, 30)))
    assert_same_bits(whole, broken)


@pytest.mark.proves("DIST-07")
@pytest.mark.parametrize("consistency", [{"mode": "async"}, {"mode": "bounded_staleness", "bound": 1}], ids=lambda c: c["mode"])
def test_out_of_step_workers_stay_within_their_bound(consistency: Json, nursery: Nursery, tmp_path: Path) -> None:
    spec = _spread(SPEC | {"training": {"epochs": 20, "batch_size": 63}}, 4, **consistency)
    home = trained(nursery, tmp_path / "run", spec, 4)
    got = series(home)
    first, last = min(s for s, k in got if k == "train/loss"), max(s for s, k in got if k == "train/loss")
    assert got[last, "train/loss"] < 0.9 * got[first, "train/loss"]
    trace = json.loads((home / "artifacts" / "staleness-rank3.json").read_text())
    steps = finished(home).step
    assert sum(trace["staleness"].values()) == 3 * steps  # three workers, each its own gradients
    assert sum(trace["leads"].values()) == 3 * steps
    assert finished(home, 3).step == 3 * steps
    if consistency["mode"] == "bounded_staleness":
        assert max(map(int, trace["leads"])) <= 1


def test_a_server_ends_with_workers_that_fail(nursery: Nursery, tmp_path: Path) -> None:
    spec = _spread(SPEC | {"optimizer": {"type": "sgd", "lr": 1e12}, "training": {"epochs": 50, "batch_size": 64}}, 3)
    home = workspace(tmp_path / "run", spec, **blobs())
    assert nursery.run(home, 3) == [3, 3, 3], log(home)
    assert finished(home, 2).reason == "nan_loss"


def test_one_process_goes_on_without_servers(nursery: Nursery, alone: Alone, tmp_path: Path) -> None:
    home = trained(nursery, tmp_path / "run", _spread(SPEC, 3), 3)
    final_checkpoint(home).rename(tmp_path / "kept")
    assert nursery.run(home, 1) == [0], log(home)
    off = differences(alone(SPEC), home)
    assert max(off.values()) <= 2e-6, off
