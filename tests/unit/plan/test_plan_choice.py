"""What `strategy: auto` stands for, and that plan and trainer take it from the same arithmetic."""

from typing import Any

import pytest

from stoker.plan import plan
from stoker.plan.choice import candidates, choose, rank_limit
from stoker.plan.known import known_of
from stoker.spec.distributed import DDP, FSDP, Auto, Single
from tests.support.plan_cases import classifier, resolved, table

TABLE = table(2000, 100)
WIDE = {"type": "mlp", "hidden_sizes": [1000] * 12}
TRAINING = {"max_steps": 2, "batch_size": 64}


def _auto(ranks: int = 4, **more: Any) -> Any:
    distributed = {"strategy": "auto", "processes_per_node": ranks}
    return resolved(classifier(WIDE, training=TRAINING, distributed=distributed, **more), TABLE)


def _need(distributed: dict[str, Any]) -> int:
    spec = resolved(classifier(WIDE, training=TRAINING, distributed={"processes_per_node": 4, **distributed}), TABLE)
    return plan(spec, TABLE).memory.rank_bytes


def test_the_fastest_that_fits_is_taken() -> None:
    known = known_of(_auto(), TABLE)
    whole, shards = _need({"strategy": "ddp"}), _need({"strategy": "fsdp"})
    assert shards < whole
    assert choose(_auto(), known, whole).spec.distributed == DDP(processes_per_node=4)
    less = choose(_auto(), known, whole - 1)
    assert isinstance(less.spec.distributed, FSDP)
    assert "ddp needs" in less.reason
    assert "more than" in less.reason
    assert isinstance(choose(_auto(), known, shards).spec.distributed, FSDP)
    nothing = choose(_auto(), known, 1)
    assert nothing.fits is False
    assert nothing.spec.distributed == FSDP(processes_per_node=4)
    assert choose(_auto(), known, None).spec.distributed == DDP(processes_per_node=4)


def test_one_rank_is_a_single_one() -> None:
    assert list(candidates(Auto(processes_per_node=1))) == [Single()]


def test_ranks_are_as_many_as_were_asked_for() -> None:
    for candidate in candidates(Auto(nodes=2, min_nodes=1, processes_per_node=3)):
        assert (candidate.nodes, candidate.fewest_nodes, candidate.processes_per_node) == (2, 1, 3)


@pytest.mark.parametrize(
    ("reserved", "worker", "device", "limit"),
    [(None, None, None, None), (4.0, None, None, 2**30), (4.0, 2**31, None, 2**29), (8.0, None, 2**30, 2**30)],
)
def test_a_rank_has_its_share_of_the_node_and_all_of_its_gpu(
    reserved: float | None, worker: int | None, device: int | None, limit: int | None
) -> None:
    spec = _auto(resources={"memory_gb": reserved} if reserved else {})
    assert rank_limit(spec, worker_bytes=worker, device_bytes=device) == limit


def test_the_plan_says_which_and_why_and_predicts_that_one() -> None:
    free, tight = plan(_auto(), TABLE), plan(_auto(), TABLE, device_bytes=_need({"strategy": "ddp"}) - 1)
    assert free.strategy == "ddp: the fastest; no memory limit is known"
    assert free.memory.rank_bytes == _need({"strategy": "ddp"})
    assert tight.strategy is not None
    assert "fsdp" in tight.strategy
    assert tight.memory.rank_bytes < free.memory.rank_bytes
    assert tight.fits
    assert plan(resolved(classifier(WIDE, training=TRAINING), TABLE), TABLE).strategy is None
