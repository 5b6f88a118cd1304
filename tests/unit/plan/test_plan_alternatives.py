"""Where a run does not fit, each alternative is a change of the spec that keeps its batch and costs what it says."""

from functools import reduce
from typing import Any

import pytest

from stoker.plan import Plan, plan
from stoker.plan.prediction import Alternative
from stoker.spec import JobSpec
from stoker.spec.derived.automatic import completed
from tests.support.plan_cases import language, resolved, text

CONTENT = text(1_000_000)
MODEL = {"num_layers": 8, "hidden_size": 512, "num_heads": 8}


def spec_of(**more: Any) -> JobSpec:
    return resolved(language(MODEL, length=256, **({"training": {"epochs": 1, "batch_size": 48}} | more)), CONTENT)


def applied(spec: JobSpec, alternative: Alternative) -> JobSpec:
    """The spec with the patch written into its document, as `-o path=value` would; a union's other member starts anew."""
    document = spec.model_dump(mode="json")
    if alternative.patch.get("distributed.strategy"):
        document["distributed"] = {}
    for path, value in alternative.patch.items():
        *above, last = path.split(".")
        reduce(lambda part, name: part[name], above, document)[last] = value
    return completed(JobSpec.model_validate(document, strict=False), CONTENT)


def check(spec: JobSpec, predicted: Plan, **limit: int) -> None:
    assert predicted.fits is False
    assert predicted.alternatives
    for alternative in predicted.alternatives:
        then = plan(applied(spec, alternative), CONTENT, **limit)
        assert then.memory.total_bytes == alternative.total_bytes
        assert then.memory.rank_bytes == alternative.rank_bytes
        assert then.fits == alternative.fits
        assert then.batch.size == predicted.batch.size
    fitting = [alternative.fits for alternative in predicted.alternatives]
    assert fitting == sorted(fitting, reverse=True)


def test_none_are_offered_where_it_fits() -> None:
    spec = spec_of()
    assert plan(spec, CONTENT).fits is None
    roomy = plan(spec, CONTENT, worker_bytes=1 << 45)
    assert roomy.fits is True
    assert roomy.alternatives == ()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.75, 0.95])
def test_a_worker_too_small(share: float) -> None:
    spec = spec_of()
    limit = int(plan(spec, CONTENT).memory.total_bytes * share)
    predicted = plan(spec, CONTENT, worker_bytes=limit)
    check(spec, predicted, worker_bytes=limit)
    assert any("training.micro_batch_size" in alternative.patch for alternative in predicted.alternatives)
    assert any("precision.mode" in alternative.patch for alternative in predicted.alternatives)


def test_a_device_too_small_is_helped_by_more_ranks() -> None:
    spec = spec_of()
    limit = int(plan(spec, CONTENT).memory.rank_bytes * 0.8)
    predicted = plan(spec, CONTENT, device_bytes=limit)
    check(spec, predicted, device_bytes=limit)
    assert any("distributed.processes_per_node" in alternative.patch for alternative in predicted.alternatives)


def test_a_machine_too_small_is_helped_by_fewer_ranks() -> None:
    spec = spec_of(distributed={"strategy": "ddp", "processes_per_node": 4})
    limit = int(plan(spec, CONTENT).memory.total_bytes * 0.8)
    predicted = plan(spec, CONTENT, worker_bytes=limit)
    check(spec, predicted, worker_bytes=limit)
    assert any(alternative.patch.get("distributed.processes_per_node") == 2 for alternative in predicted.alternatives)


def test_a_reservation_in_the_spec_is_a_limit() -> None:
    spec = spec_of(resources={"memory_gb": 1.0})
    predicted = plan(spec, CONTENT)
    assert predicted.limit_bytes == 2**30
    check(spec, predicted)


def test_the_mildest_micro_batch_that_fits_is_offered() -> None:
    spec = spec_of()
    halved = plan(
        resolved(language(MODEL, length=256, training={"epochs": 1, "batch_size": 48, "micro_batch_size": 24}), CONTENT), CONTENT
    )
    predicted = plan(spec, CONTENT, worker_bytes=halved.memory.total_bytes)
    (one,) = [
        a for a in predicted.alternatives if set(a.patch) == {"training.micro_batch_size", "training.gradient_accumulation_steps"}
    ]
    assert one.patch == {"training.micro_batch_size": 24, "training.gradient_accumulation_steps": 2}
    assert one.fits
