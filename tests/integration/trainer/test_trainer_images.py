"""Runs that need another worker image than this one end before their first step and say which."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tests.support.trainer_runs import Nursery, blobs, events, finished, workspace

JOB: dict[str, Any] = {
    "task": {"type": "classification"},
    "model": {"type": "mlp", "hidden_sizes": [8]},
    "data": {"source": {"type": "arrays", "dataset": "set@1"}, "split": {"validation": 0.2, "test": 0.1}},
    "training": {"max_steps": 3, "batch_size": 32},
}


@pytest.mark.skipif(importlib.util.find_spec("horovod") is not None, reason="this environment has Horovod")
def test_without_horovod_every_rank_says_what_to_do(nursery: Nursery, tmp_path: Path) -> None:
    spec = JOB | {"distributed": {"strategy": "horovod", "processes_per_node": 2}}
    home = workspace(tmp_path / "run", spec, **blobs())
    assert nursery.run(home, 2) == [2, 2]
    for rank in (0, 1):
        end = finished(home, rank)
        assert (end.reason, end.step) == ("spec_error", 0)
        assert "worker-horovod" in end.message
        assert not any(type(event).__name__ == "Started" for event in events(home, rank))
