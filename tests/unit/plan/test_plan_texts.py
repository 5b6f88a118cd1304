"""Texts of a table: state and FLOPs exactly, what a pass keeps within a few percent, against the trainer's own models."""

from typing import Any

import pytest
import torch

from stoker.facts import ColumnFacts, DatasetFacts, TableFacts
from stoker.plan import plan
from stoker.plan.draw import draw
from stoker.plan.known import known_of
from stoker.spec import JobSpec
from tests.support.plan_cases import Json, as_computed, classifier, facts, resolved
from tests.support.plan_measure import batch_of_samples, flops, kept_bytes, loss_of, model_of

ENCODER: Json = {"type": "transformer_encoder", "num_layers": 3, "hidden_size": 32, "num_heads": 4}
MODELS = {
    "mean": ENCODER,
    "first": ENCODER | {"pooling": "first", "pooler": True},
    "dropout": ENCODER | {"attention_dropout": 0.1, "dropout": 0.1},
    "capped": ENCODER | {"attention_softcap": 5.0, "position": {"type": "rope"}},
    "shared heads": ENCODER | {"num_kv_heads": 2, "value_dim": 4},
    "rnn": {"type": "rnn", "hidden_size": 48, "num_layers": 2},
    "lstm": {"type": "lstm", "hidden_size": 48},
    "gru": {"type": "gru", "hidden_size": 48, "embedding_size": 7},
    "layers": {
        "type": "layers",
        "layers": [{"type": "embedding", "size": 16}, {"type": "pool", "kind": "global_avg"}, {"type": "linear", "units": 10}],
    },
}


def texts() -> DatasetFacts:
    target = ColumnFacts(name="y", kind="integer", distinct=10, counts={str(i): 10 for i in range(10)})
    return facts(TableFacts(format="csv", rows=100, columns=(ColumnFacts(name="review", kind="string"), target)))


def job(model: Json, **more: Any) -> JobSpec:
    source = {"type": "csv", "dataset": "set@1", "text": "review"}
    tokenizer = {"type": "bpe", "vocab_size": 300}
    data = {"source": source, "tokenizer": tokenizer, "sequence": {"length": 64}}
    return resolved(classifier(model, data=data, **more), texts())


@pytest.mark.parametrize("name", MODELS)
def test_state_is_exact(name: str) -> None:
    spec, content = job(MODELS[name]), texts()
    model = model_of(spec, content)
    assert plan(spec, content).parameters.total == sum(p.numel() for p in model.parameters())
    tape = draw(spec, known_of(spec, content), 3)
    drawn = {name for w in tape.weights for name in (w.name.format(layer) for layer in range(w.copies))}
    assert drawn == set(model.state_dict())


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("lstm", "gru", "rnn")])
def test_flops_are_exact(name: str) -> None:
    spec, content = job(MODELS[name]), texts()
    tape = draw(spec, known_of(spec, content), 4)
    forward, both = flops(spec, content, 4)
    assert (tape.forward, tape.forward + tape.backward) == (forward, both)


@pytest.mark.parametrize("mode", ["fp32", "bf16_mixed"])
@pytest.mark.parametrize("name", MODELS)
def test_what_a_pass_keeps(name: str, mode: str) -> None:
    spec, content = job(MODELS[name], precision={"mode": mode}), texts()
    known, model = known_of(spec, content), model_of(spec, content, "cpu")
    samples = batch_of_samples(spec, known, 8)
    with kept_bytes(model) as kept, torch.autocast("cpu", torch.bfloat16, enabled=mode != "fp32"):
        loss_of(spec, known, model(samples[0]), samples[1])
    assert draw(as_computed(spec), known, 8).activation_bytes == pytest.approx(kept.bytes, rel=0.03)


def test_counts() -> None:
    made = plan(job(ENCODER), texts())
    assert (made.samples.train, made.samples.validation, made.samples.tokens_per_sample) == (90, 10, 64)
    assert not made.samples.estimated
