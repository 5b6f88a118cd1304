"""Resolving fills in what a document leaves open, says where each value came from, and is done when it is done."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoker.document.grammar import leaves
from stoker.document.load import compose, load_text
from stoker.document.resolve import canonical_json, digest, resolve
from stoker.errors import SpecError
from stoker.facts import DatasetFacts
from tests.support.spec_cases import ARRAYS, JOBS, STACK_JOB, TABLE, TABLE_JOB, TEXT, TEXT_JOB, Json, changed


@pytest.mark.parametrize(("job", "facts"), JOBS.values(), ids=JOBS)
def test_resolving_a_resolved_spec_is_the_identity(job: Json, facts: DatasetFacts) -> None:
    first = resolve(job, facts)
    again = resolve(json.loads(first.canonical), facts)
    assert again.spec == first.spec
    assert (again.canonical, again.digest) == (first.canonical, first.digest)
    without_facts = resolve(json.loads(first.canonical))
    assert without_facts.digest == first.digest


FILLED = {
    "table": {
        "/task/num_classes": 3,
        "/data/source/dataset": "d@3",
        "/data/source/columns/0": "a",
        "/data/source/columns/1": "b",
        "/data/split/strategy": "stratified",
        "/loss/type": "cross_entropy",
        "/evaluation/metrics/0/type": "accuracy",
        "/evaluation/batch_size": 32,
        "/training/micro_batch_size": 32,
        "/training/gradient_accumulation_steps": 1,
        "/reproducibility/data_seed": 0,
        "/resources/cpus": 1,
        "/checkpoint/mode": "min",
        "/data/tokenizer": None,
    },
    "regression": {
        "/task/num_outputs": 1,
        "/data/source/columns/0": "b",
        "/data/source/columns/1": "t",
        "/data/split/strategy": "random",
        "/loss/type": "mse",
        "/evaluation/metrics/0/type": "mae",
        "/evaluation/metrics/1/type": "rmse",
    },
    "text": {
        "/data/tokenizer/type": "byte",
        "/data/split/strategy": "contiguous",
        "/model/ffn_size": 128,
        "/model/num_kv_heads": 4,
        "/model/key_dim": 8,
        "/evaluation/metrics/0/type": "perplexity",
    },
    "stack": {"/task/num_classes": 5, "/model/layers/1/kernel_size": 2, "/model/layers/1/stride": 2},
    "pictures": {"/task/num_classes": 2, "/data/source/height": 16, "/data/source/width": 16},
    "numbers": {"/task/num_outputs": 2},
}


@pytest.mark.parametrize("name", FILLED)
def test_automatic_fields_are_filled(name: str) -> None:
    job, facts = JOBS[name]
    resolved = resolve(job, facts)
    found = dict(leaves(json.loads(resolved.canonical)))
    assert {pointer: found.get(pointer) for pointer in FILLED[name]} == FILLED[name]
    for pointer, value in FILLED[name].items():
        if value is not None and pointer not in ("/task/num_classes",):
            assert resolved.origins[pointer] == "auto" or found[pointer] == dict(leaves(job)).get(pointer)


def test_rope_turns_the_whole_head() -> None:
    spec = resolve(changed(TEXT_JOB, {"model.position": {"type": "rope"}}), TEXT).spec
    assert spec.model.type == "transformer_decoder"
    assert spec.model.position.type == "rope"
    assert spec.model.position.dim == 8


def test_accumulation_and_ranks_share_the_batch() -> None:
    job = changed(TABLE_JOB, {"training.batch_size": 48, "training.micro_batch_size": 8, "distributed": {"strategy": "ddp"}})
    spec = resolve(job, TABLE).spec
    assert (spec.training.gradient_accumulation_steps, spec.resources.cpus, spec.evaluation.batch_size) == (3, 2, 8)


def test_modes_follow_the_metric() -> None:
    watch = {"monitor": "validation/accuracy"}
    spec = resolve(changed(TABLE_JOB, {"checkpoint": watch, "training.early_stopping": watch}), TABLE).spec
    assert spec.training.early_stopping is not None
    assert (spec.checkpoint.mode, spec.training.early_stopping.mode) == ("max", "max")


def test_without_validation_nothing_is_kept_as_best_unless_asked() -> None:
    job = changed(TABLE_JOB, {"data.split": {"validation": 0}})
    resolved = resolve(job, TABLE)
    assert (resolved.spec.checkpoint.keep_best, resolved.origins["/checkpoint/keep_best"]) == (0, "auto")
    with pytest.raises(SpecError, match="keep_best"):
        resolve(changed(job, {"checkpoint.keep_best": 1}), TABLE)


def test_every_leaf_has_an_origin() -> None:
    document = load_text(
        "extends: preset:mlp-small\ntask: {type: classification, target: t}\ndata: {source: {type: csv, dataset: d}}"
    )
    resolved = resolve(compose(document, ["optimizer.lr=1e-2"]), TABLE)
    assert set(resolved.origins) == {pointer for pointer, _ in leaves(json.loads(resolved.canonical))}
    assert resolved.origins["/optimizer/lr"] == "override"
    assert resolved.origins["/model/hidden_sizes/0"] == "preset:mlp-small"
    assert resolved.origins["/task/target"] == "user"
    assert resolved.origins["/optimizer/beta1"] == "default"
    assert resolved.origins["/task/num_classes"] == "auto"
    assert resolved.submitted["optimizer"]["lr"] == 0.01


YAML = """
task: {type: classification, target: t}
model: {type: mlp, hidden_sizes: [8], dropout: 0}
data: {source: {type: csv, dataset: d}}
optimizer: {type: adamw, lr: 1e-3}
training: {epochs: 5}
"""
TOML = """
[task]
type = "classification"
target = "t"
[model]
type = "mlp"
hidden_sizes = [8]
dropout = 0.0
[data.source]
type = "csv"
dataset = "d"
[optimizer]
type = "adamw"
lr = 0.001
[training]
epochs = 5
"""
JSON = """{"training": {"epochs": 5}, "optimizer": {"lr": 1E-3, "type": "adamw"}, "data": {"source": {"dataset": "d", "type": "csv"}},
"model": {"hidden_sizes": [8], "type": "mlp", "dropout": -0.0}, "task": {"target": "t", "type": "classification"}}"""


def test_one_job_has_one_digest_in_every_format() -> None:
    resolved = [resolve(load_text(YAML), TABLE), resolve(load_text(TOML, "toml"), TABLE), resolve(load_text(JSON, "json"), TABLE)]
    assert len({each.digest for each in resolved}) == 1
    assert len({each.canonical for each in resolved}) == 1
    assert all(each.digest == digest(each.spec) and each.canonical == canonical_json(each.spec) for each in resolved)


def test_filing_does_not_change_the_digest_but_the_seed_does() -> None:
    base = resolve(TABLE_JOB, TABLE)
    filed = resolve(changed(TABLE_JOB, {"name": "x", "labels": {"a": "b"}, "priority": 5, "project": "other"}), TABLE)
    assert filed.digest == base.digest
    assert filed.canonical != base.canonical
    assert resolve(changed(TABLE_JOB, {"reproducibility": {"seed": 1}}), TABLE).digest != base.digest


def test_the_canonical_form_is_sorted_compact_json() -> None:
    text = resolve(TABLE_JOB, TABLE).canonical
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def test_the_newest_version_is_pinned_and_an_exact_one_kept() -> None:
    assert resolve(changed(TABLE_JOB, {"data.source.dataset": "d@3"}), TABLE).spec.data.source.dataset == "d@3"
    assert resolve(TABLE_JOB).spec.data.source.dataset == "d"


def test_device_stays_as_given() -> None:
    assert resolve(TABLE_JOB, TABLE).spec.resources.device == "auto"


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PLACES = sorted({pointer.replace("/", ".")[1:] for job, _ in JOBS.values() for pointer, _ in leaves(job)} | {
    "optimizer", "schedule", "loss", "evaluation", "evaluation.metrics", "checkpoint", "labels", "distributed", "data", "model",
    "training.batch_size", "training.micro_batch_size", "data.split", "data.normalization", "resources", "api_version", "extends",
})  # fmt: skip
WORDS = st.sampled_from(
    [{"type": "sgd", "nesterov": True}, {"type": "cosine", "warmup_steps": 9**9}, {"type": "step", "step_size": {"seconds": 1}}, "t", ["a"],
     {"strategy": "ddp", "processes_per_node": 7}, {"validation": 0.9, "test": 0.9}, {"type": "bpe"}, 1, 2**31 - 1, 0.0, [], {}, "preset:gpt-nano",
     {"type": "layers", "layers": [{"type": "pool", "kernel_size": [9, 9]}]}, {"type": "cross_entropy", "class_weights": [0, 0]}]
)  # fmt: skip


@given(values)
def test_any_value_is_a_spec_or_a_spec_error(value: Any) -> None:
    with pytest.raises(SpecError):
        resolve(value, TABLE)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(JOBS)), st.lists(st.tuples(st.sampled_from(PLACES), values | WORDS), min_size=1, max_size=3))
def test_any_change_of_a_spec_is_a_spec_or_a_spec_error(name: str, changes: list[tuple[str, Any]]) -> None:
    job, facts = JOBS[name]
    for place, value in changes:
        try:
            job = changed(job, {place: value})
        except (KeyError, TypeError, AttributeError, IndexError, ValueError):
            continue  # the path is not in this document
    try:
        resolved = resolve(job, facts)
    except SpecError as error:
        if not error.findings:
            raise
        return
    again = resolve(json.loads(resolved.canonical), facts)
    assert (again.spec, again.digest) == (resolved.spec, resolved.digest)


def test_shapes_are_followed_without_facts_too() -> None:
    assert resolve(STACK_JOB, ARRAYS).spec.model == resolve(STACK_JOB).spec.model
