"""What `strategy: auto` stands for, and that plan and trainer take it from the same arithmetic."""

from typing import Any

import pytest

from stoker.plan import plan
from stoker.plan.choice import candidates, choose, rank_limit
from stoker.plan.known import known_of
from stoker.spec.activation_checkpointing import Full, KeepAll
from stoker.spec.distributed import DDP, FSDP, Auto, Single
from tests.support.plan_cases import classifier, language, resolved, table, text

TABLE = table(2000, 100)
WIDE = {"type": "mlp", "hidden_sizes": [1000] * 12}
TRAINING = {"max_steps": 2, "batch_size": 64}


def _auto(ranks: int = 4, **more: Any) -> Any:
    distributed = {"strategy": "auto", "processes_per_node": ranks}
    return resolved(classifier(WIDE, training=TRAINING, distributed=distributed, **more), TABLE)


def _need(distributed: dict[str, Any]) -> int:
    spec = resolved(classifier(WIDE, training=TRAINING, distributed={"processes_per_node": 4, **distributed}), TABLE)
    return plan(spec, TABLE).memory.rank_bytes


@pytest.mark.proves("DIST-08")
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


TEXT = text(200_000)


def _decoder(distributed: dict[str, Any], device: str = "cuda", **more: Any) -> Any:
    sizes = {"num_layers": 12, "hidden_size": 768, "num_heads": 12}
    training = {"max_steps": 2, "batch_size": 32}
    sections = {
        "resources": {"device": device},
        "distributed": {"processes_per_node": 4, **distributed},
        "training": training,
        **more,
    }
    return resolved(language(sizes, length=256, **sections), TEXT)


def test_where_no_strategy_fits_activations_are_computed_again_and_then_weights_wait_in_the_host() -> None:
    auto, shards = _decoder({"strategy": "auto"}), {"strategy": "fsdp"}
    known = known_of(auto, TEXT)
    again: dict[str, Any] = {"activation_checkpointing": {"type": "full"}}
    kept = plan(_decoder(shards), TEXT).memory.rank_bytes
    recomputed = plan(_decoder(shards, **again), TEXT).memory.rank_bytes
    lent = plan(_decoder({**shards, "offload": "parameters"}, **again), TEXT).memory
    assert lent.device_bytes is not None
    assert lent.device_bytes < recomputed < kept
    first, second, third = (choose(auto, known, limit) for limit in (kept, kept - 1, recomputed - 1))
    assert (first.spec.activation_checkpointing, second.spec.activation_checkpointing) == (KeepAll(), Full())
    assert second.spec.distributed == FSDP(processes_per_node=4)
    assert third.spec.distributed == FSDP(processes_per_node=4, offload="parameters")
    assert third.spec.activation_checkpointing == Full()
    assert [choice.fits for choice in (first, second, third)] == [True, True, True]
    assert "fsdp, activations computed again needs" in second.reason
    assert "weights in the host's memory" in third.reason
    predicted = plan(auto, TEXT, device_bytes=recomputed - 1)
    assert (predicted.strategy, predicted.fits, predicted.memory) == (third.reason, True, lent)


def test_weights_wait_only_where_there_is_a_gpu_and_the_host_has_room() -> None:
    auto, on_cpu = _decoder({"strategy": "auto"}), _decoder({"strategy": "auto"}, device="cpu")
    known = known_of(auto, TEXT)
    assert choose(on_cpu, known, 1).spec.distributed == FSDP(processes_per_node=4)
    lent = plan(_decoder({"strategy": "fsdp", "offload": "parameters"}, activation_checkpointing={"type": "full"}), TEXT).memory
    assert choose(auto, known, lent.device_bytes, host=lent.rank_bytes).fits
    short = choose(auto, known, lent.device_bytes, host=lent.rank_bytes - 1)
    assert short.fits is False
    assert "per rank of the host; nothing smaller is left" in short.reason


def test_what_the_job_says_of_activations_stays() -> None:
    auto = _decoder({"strategy": "auto"}, device="cpu", activation_checkpointing={"type": "selective"})
    assert choose(auto, known_of(auto, TEXT), 1).spec.activation_checkpointing == auto.activation_checkpointing
