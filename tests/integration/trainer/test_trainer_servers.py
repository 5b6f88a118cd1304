"""A parameter server in step computes what one process computes; out of step, workers stay within their bound."""

import json
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stoker.events import Started
from tests.support.trainer_runs import (
    Nursery,
    blobs,
    events,
    final_checkpoint,
    finished,
    log,
    same_bits,
    series,
    tensors,
    workspace,
)

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


def _train(nursery: Nursery, home: Path, spec: Json, ranks: int) -> Path:
    workspace(home, spec, **blobs())
    assert nursery.run(home, ranks) == [0] * ranks, log(home)
    return home


@pytest.mark.parametrize(("workers", "servers"), [(2, 1), (2, 2)])
def test_in_step_it_is_one_process(workers: int, servers: int, nursery: Nursery, tmp_path: Path) -> None:
    whole = _train(nursery, tmp_path / "whole", SPEC, 1)
    spec = SPEC | {"training": SPEC["training"] | {"micro_batch_size": 8}}
    apart = _train(nursery, tmp_path / "apart", _spread(spec, workers + servers, servers), workers + servers)
    a, b = (tensors(final_checkpoint(home) / "model.safetensors") for home in (whole, apart))
    for name in a:
        np.testing.assert_allclose(a[name].numpy(), b[name].numpy(), rtol=0, atol=1e-6, err_msg=name)
    c, d = (tensors(final_checkpoint(home) / "optimizer.safetensors") for home in (whole, apart))
    assert c.keys() == d.keys()
    for name in c:
        np.testing.assert_allclose(c[name].numpy(), d[name].numpy(), rtol=0, atol=1e-6, err_msg=name)
    assert series(whole) == pytest.approx(series(apart), rel=2e-6, abs=2e-6)
    assert {finished(apart, rank).reason for rank in range(workers + servers)} == {"completed"}


def test_a_resumed_run_has_the_bits_of_the_uninterrupted(nursery: Nursery, tmp_path: Path) -> None:
    longer = SPEC | {"training": SPEC["training"] | {"epochs": 30}, "model": SPEC["model"] | {"dropout": 0.1}}
    spec, draw = _spread(longer, 3), random.Random("servers")
    whole = _train(nursery, tmp_path / "whole", spec, 3)
    broken = workspace(tmp_path / "broken", spec, **blobs())
    for how in (signal.SIGKILL, signal.SIGTERM):
        running = nursery.start(broken, 3)
        running.reached(draw.randrange(6, 70))
        running.signal(how)
        assert set(running.wait()) <= {0, 75, -9}, log(broken)
    assert nursery.run(broken, 3) == [0] * 3, log(broken)
    assert [e for e in events(broken) if isinstance(e, Started) and e.step > 0], "no attempt resumed"
    assert series(broken) == series(whole)
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert same_bits(final_checkpoint(broken) / name, final_checkpoint(whole) / name)


@pytest.mark.parametrize("consistency", [{"mode": "async"}, {"mode": "bounded_staleness", "bound": 1}], ids=lambda c: c["mode"])
def test_out_of_step_workers_stay_within_their_bound(consistency: Json, nursery: Nursery, tmp_path: Path) -> None:
    spec = _spread(SPEC | {"training": {"epochs": 20, "batch_size": 63}}, 4, **consistency)
    home = _train(nursery, tmp_path / "run", spec, 4)
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


def test_one_process_goes_on_without_servers(nursery: Nursery, tmp_path: Path) -> None:
    whole = _train(nursery, tmp_path / "whole", SPEC, 1)
    home = _train(nursery, tmp_path / "run", _spread(SPEC, 3), 3)
    final_checkpoint(home).rename(tmp_path / "kept")
    assert nursery.run(home, 1) == [0], log(home)
    a, b = (tensors(final_checkpoint(path) / "model.safetensors") for path in (whole, home))
    for name in a:
        np.testing.assert_allclose(a[name].numpy(), b[name].numpy(), rtol=0, atol=2e-6, err_msg=name)
