"""What the scheduler is told to find, and how a plan travels."""

import json

from stoker.plan import Needs, Plan, needs, plan
from tests.support.plan_cases import classifier, language, resolved, table, text

CONTENT = table(100, 3)
SMALL = {"type": "mlp", "hidden_sizes": [4]}


def test_the_estimate_is_what_is_asked_for() -> None:
    spec = resolved(classifier(SMALL), CONTENT)
    predicted = plan(spec, CONTENT)
    assert needs(spec, predicted).document() == {
        "device": "auto",
        "ranks": 1,
        "cpus": 1,
        "memory_bytes": predicted.memory.total_bytes,
        "nodes": 1,
        "time_limit_seconds": None,
    }


def test_the_spec_overrides_the_estimate() -> None:
    more = {"device": "cpu", "cpus": 6, "memory_gb": 1.5, "time_limit_seconds": 60.0}
    spec = resolved(classifier(SMALL, resources=more, distributed={"strategy": "ddp", "processes_per_node": 2}), CONTENT)
    asked = {"device": "cpu", "ranks": 2, "cpus": 6, "memory_bytes": 3 << 29, "nodes": 1, "time_limit_seconds": 60.0}
    assert needs(spec, plan(spec, CONTENT)).document() == asked


def test_what_is_asked_for_travels_as_json_and_opens_from_older_rows() -> None:
    spread = {"strategy": "horovod", "nodes": 4, "processes_per_node": 1, "min_nodes": 2}
    spec = resolved(classifier(SMALL, distributed=spread, resources={"placement": "spread"}), CONTENT)
    asked = needs(spec, plan(spec, CONTENT))
    stored = asked.document()
    assert {name: stored[name] for name in ("min_nodes", "placement", "backends")} == {
        "min_nodes": 2,
        "placement": "spread",
        "backends": ["horovod"],
    }
    assert Needs.model_validate(json.loads(json.dumps(stored))) == asked
    oldest = Needs.model_validate({"device": "cuda", "ranks": 2, "cpus": 4, "memory_bytes": 7})
    assert (oldest.nodes, oldest.min_nodes, oldest.placement, oldest.backends, oldest.time_limit_seconds) == (
        1,
        None,
        "pack",
        (),
        None,
    )


def test_a_job_for_horovod_needs_a_worker_that_has_it_and_no_gpu() -> None:
    spec = resolved(classifier(SMALL, distributed={"strategy": "horovod", "processes_per_node": 2}), CONTENT)
    asked = needs(spec, plan(spec, CONTENT))
    assert (asked.backends, asked.device, asked.ranks) == (("horovod",), "cpu", 2)


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


def test_several_nodes_share_what_the_run_needs() -> None:
    spread = {"strategy": "ddp", "nodes": 2, "processes_per_node": 2}
    spec = resolved(classifier(SMALL, resources={"memory_gb": 1.5}, distributed=spread), CONTENT)
    given = needs(spec, plan(spec, CONTENT))
    assert (given.nodes, given.ranks, given.cpus) == (2, 4, 4)
    assert given.memory_bytes == 2 * (3 << 29), "memory_gb is that of each node"
    assert "min_nodes" not in given.document()


def test_fewer_nodes_are_held_to_the_larger_share_of_each() -> None:
    """Model shards of one node alone are twice those of two, and its ranks make twice the passes of a step."""
    wide, training = {"type": "mlp", "hidden_sizes": [2048, 2048]}, {"max_steps": 2, "batch_size": 16}
    spread = {"strategy": "fsdp", "processes_per_node": 2}
    pair = classifier(wide, distributed=spread | {"nodes": 2, "min_nodes": 1}, training=training)
    alone = classifier(wide, distributed=spread, training=training | {"gradient_accumulation_steps": 2})
    given = needs(spec := resolved(pair, CONTENT), plan(spec, CONTENT))
    assert (given.nodes, given.min_nodes) == (2, 1)
    assert given.memory_bytes == 2 * plan(resolved(alone, CONTENT), CONTENT).memory.total_bytes
    assert given.memory_bytes > plan(spec, CONTENT).memory.total_bytes
