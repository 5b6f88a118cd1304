"""Smaller batches after a lack of memory: the same global batch, at most four times, never for a batch that cannot be divided."""

import json
from typing import Any

import pytest

from server.attempts.remedies import applied, smaller
from stoker.facts import DatasetFacts, TableFacts
from tests.support.spec_cases import facts

SPEC: dict[str, Any] = {
    "task": {"type": "classification", "target": "t", "num_classes": 2},
    "model": {"type": "mlp"},
    "data": {"source": {"type": "csv", "dataset": "d@1"}},
}


def spec(batch: int, micro: int | None, accumulation: int | None, ranks: int = 1) -> dict[str, Any]:
    training = {"epochs": 1, "batch_size": batch, "micro_batch_size": micro, "gradient_accumulation_steps": accumulation}
    spread: dict[str, Any] = {"strategy": "ddp", "processes_per_node": ranks} if ranks > 1 else {"strategy": "single"}
    return SPEC | {"training": training, "distributed": spread}


@pytest.mark.parametrize(
    ("document", "divisions"),
    [
        (spec(64, 64, 1), [(32, 2), (16, 4), (8, 8), (4, 16)]),
        (spec(64, 16, 2, ranks=2), [(8, 4), (4, 8), (2, 16), (1, 32)]),
        (spec(48, 12, None, ranks=2), [(6, 4), (3, 8), (1, 24)]),
        (spec(30, 15, 2), [(6, 5), (3, 10), (1, 30)]),
        (spec(7, 7, 1), [(1, 7)]),
        (spec(8, 1, 8), []),
    ],
)
def test_each_is_at_most_half_of_the_one_before(document: dict[str, Any], divisions: list[tuple[int, int]]) -> None:
    found, remedy = [], None
    whole, parts = document["training"]["batch_size"], document["distributed"].get("processes_per_node", 1)
    while (next_one := smaller(json.dumps(document), remedy)) is not None:
        remedy = next_one.model_dump()
        found.append((next_one.micro_batch_size, next_one.gradient_accumulation_steps))
        assert next_one.halvings == len(found)
        ran = applied(document, remedy)
        assert ran["training"]["micro_batch_size"] * ran["training"]["gradient_accumulation_steps"] * parts == whole
        assert {k: v for k, v in ran.items() if k != "training"} == {k: v for k, v in document.items() if k != "training"}
    assert found == divisions


STAGES: dict[str, Any] = {
    "task": {"type": "causal_lm"},
    "model": {"type": "transformer_decoder", "num_layers": 4, "hidden_size": 8, "num_heads": 2, "tie_embeddings": False},
    "data": {"source": {"type": "text", "dataset": "d@1"}, "tokenizer": {"type": "byte"}, "sequence": {"length": 8}},
    "distributed": {"strategy": "ddp", "processes_per_node": 2, "pipeline_parallel": {"degree": 2, "microbatches": 4}},
}
NORMED = {"model": {"type": "mlp", "normalization": {"type": "batch"}}}


def divided(document: dict[str, Any], facts: DatasetFacts | None = None) -> list[int]:
    """Micro-batches of all remedies, one after the other."""
    sizes, remedy = [], None
    while (next_one := smaller(json.dumps(document), remedy, facts)) is not None:
        remedy = next_one.model_dump()
        sizes.append(next_one.micro_batch_size)
    return sizes


def test_pieces_of_a_pipeline_stay_whole() -> None:
    training = {"epochs": 1, "batch_size": 48, "micro_batch_size": 24, "gradient_accumulation_steps": 2}
    assert divided(STAGES | {"training": training}) == [12, 4], "6 and 3 do not divide into four pieces"


def test_batch_norm_never_sees_one_sample() -> None:
    assert divided(spec(32, 8, 4) | NORMED) == [4, 2]
    rows = facts(TableFacts(format="csv", rows=37, columns=(), delimiter=","))
    odd = spec(32, 8, 4) | NORMED | {"data": SPEC["data"] | {"split": {"validation": 0.0}, "loader": {"drop_last": False}}}
    assert divided(odd, rows) == [], "the last batch has 5 samples: 4 and 2 leave one of them alone, as 1 would"


def test_rules_that_came_after_a_job_are_not_held_against_it() -> None:
    twice = {"optimizer": {"type": "sgd"}, "data": SPEC["data"] | {"sequence": {"length": 8}}}
    assert divided(spec(4, 4, 1) | twice) == [2, 1], "a table of numbers has no sequences, and was accepted all the same"


def test_without_a_remedy_the_spec_is_run_as_it_is() -> None:
    assert applied(SPEC, None) is SPEC
