"""What the scheduler is told to find, and how a plan travels."""

import json

from stoker.plan import Plan, needs, plan
from tests.support.plan_cases import classifier, language, resolved, table, text

CONTENT = table(100, 3)
SMALL = {"type": "mlp", "hidden_sizes": [4]}


def test_the_estimate_is_what_is_asked_for() -> None:
    spec = resolved(classifier(SMALL), CONTENT)
    predicted = plan(spec, CONTENT)
    assert needs(spec, predicted) == {
        "device": "auto",
        "ranks": 1,
        "cpus": 1,
        "memory_bytes": predicted.memory.total_bytes,
        "nodes": 1,
    }


def test_the_spec_overrides_the_estimate() -> None:
    more = {"device": "cpu", "cpus": 6, "memory_gb": 1.5}
    spec = resolved(classifier(SMALL, resources=more, distributed={"strategy": "ddp", "processes_per_node": 2}), CONTENT)
    assert needs(spec, plan(spec, CONTENT)) == {"device": "cpu", "ranks": 2, "cpus": 6, "memory_bytes": 3 << 29, "nodes": 1}


def test_a_plan_survives_json() -> None:
    predicted = plan(resolved(classifier(SMALL), CONTENT), CONTENT, worker_bytes=1)
    assert Plan.model_validate_json(json.dumps(predicted.model_dump(mode="json"))) == predicted


def test_json_numbers_fit_64_bits() -> None:
    content = text(10**12)
    training = {"epochs": 2**31 - 1, "batch_size": 1024, "micro_batch_size": 1}
    spec = resolved(language({"num_layers": 100, "hidden_size": 10_000}, length=1000, training=training), content)
    predicted = plan(spec, content)
    assert isinstance(predicted.flops.total_flops, int)
    assert predicted.flops.total_flops > 2**64

    def check(value: object) -> None:
        if isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                check(inner)
        elif isinstance(value, int):
            assert abs(value) < 2**63

    check(predicted.model_dump(mode="json"))
