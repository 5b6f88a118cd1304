"""Hugging Face directories written out in a document, with the origin of each value, by facts alone."""

import json
from typing import Any

import pytest

from stoker.document.document import Document
from stoker.document.opened import Opened, opened, source_of, unread
from stoker.document.resolve import Resolved, resolve
from stoker.facts import DatasetFacts, TextFacts, WeightFacts
from stoker.plan import plan
from stoker.spec.derived.problem import problem_of

GPT2: dict[str, Any] = {"model_type": "gpt2", "vocab_size": 300, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}
BERT: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 90,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 90,
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0},
}
TEXT = DatasetFacts(
    name="words", version=2, digest="0" * 64, bytes=9000, content=TextFacts(bytes=9000, characters=9000, distinct_characters=30)
)


def directory(
    config: dict[str, Any] | None, tokens: int | None = None, mask_id: int | None = None, pad_id: int | None = None
) -> DatasetFacts:
    content = WeightFacts(tensors=1, parameters=1, config=config, vocabulary=tokens, mask_id=mask_id, pad_id=pad_id)
    return DatasetFacts(name="theirs", version=3, digest="1" * 64, bytes=1, content=content)


def job(task: str = "causal_lm", **more: Any) -> dict[str, Any]:
    data = {"source": {"type": "text", "dataset": "words"}, "sequence": {"length": 16}}
    base = {"task": {"type": task}, "model": {"type": "hf", "source": "theirs"}, "data": data}
    return base | {"training": {"max_steps": 1, "batch_size": 4}} | more


def written(value: dict[str, Any], facts: DatasetFacts) -> Opened:
    return opened(value, facts)


def resolved(value: dict[str, Any], facts: DatasetFacts) -> Resolved:
    found = written(value, facts)
    assert found.findings == ()
    made = resolve(Document(found.value, origins=dict(found.origins)), TEXT)
    assert list(unread(found, problem_of(made.spec, TEXT).vocab_size)) == []
    return made


def test_every_field_has_an_origin() -> None:
    made = resolved(job(model={"type": "hf", "source": "theirs", "dropout": 0.3}), directory(GPT2, 290))
    assert made.origins["/model/num_layers"] == made.origins["/data/tokenizer/vocab_size"] == "hf:theirs@3"
    assert made.origins["/initialization/start/names"] == "hf:theirs@3"
    assert (made.origins["/model/dropout"], made.origins["/data/source/type"]) == ("user", "user")
    assert resolve(made.spec.model_dump(mode="json"), TEXT).digest == made.digest


@pytest.mark.parametrize(
    ("task", "tokens", "mask", "rows", "asked"),
    [
        ("causal_lm", 80, None, 90, 90),  # rows that no token has stay
        ("masked_lm", 80, 4, 90, 90),
        ("masked_lm", 80, None, 89, 90),  # the last row is the mask, as in an export of ours
        ("masked_lm", 90, None, 90, None),  # no row is left for a mask
    ],
)
def test_rows_of_the_embedding_are_those_of_the_weights(
    task: str, tokens: int, mask: int | None, rows: int, asked: int | None
) -> None:
    found = written(job(task), directory(BERT if task == "masked_lm" else LLAMA, tokens, mask))
    spec = resolve(found.value, TEXT).spec
    assert spec.data.tokenizer is not None
    assert getattr(spec.data.tokenizer, "vocab_size", None) == rows
    told = [finding.pointer for finding in unread(found, problem_of(spec, TEXT).vocab_size)]
    assert told == ([] if asked is not None else ["/data/tokenizer"])


def test_an_encoder_has_the_head_of_the_task() -> None:
    facts = directory(BERT | {"architectures": ["BertModel"]}, 90, mask_id=4, pad_id=0)
    masked = resolved(job("masked_lm"), facts).spec
    assert (getattr(masked.model, "head_transform", None), getattr(masked.model, "pooler", None)) == (True, False)
    assert getattr(masked.initialization.start, "reset_head", None) is False
    texts = {"source": {"type": "csv", "dataset": "words", "text": "review"}, "sequence": {"length": 16}}
    told = written(job("classification", data=texts), facts).value
    assert (told["model"]["head_transform"], told["model"]["pooler"], told["model"]["pooling"]) == (False, True, "first")
    assert told["initialization"]["start"]["reset_head"] is True
    assert told["data"]["tokenizer"]["pad_id"] == 0


def test_a_start_of_ones_own_keeps_what_it_says() -> None:
    start = {"type": "pretrained", "source": "theirs", "strict": False, "exclude_keys": ["positions.*"]}
    made = resolved(job(initialization={"start": start}), directory(GPT2, 290))
    begins = made.spec.initialization.start.model_dump()
    assert begins["exclude_keys"] == ("positions.*",)
    assert (begins["strict"], begins["names"], begins["source"]) == (False, "huggingface", "theirs@3")
    assert made.origins["/initialization/start/strict"] == "user"


def test_going_on_from_a_checkpoint_begins_nowhere_else() -> None:
    value = job(checkpoint={"resume_from": {"job": "job_" + "0" * 26}})
    found = written(value, directory(GPT2, 290))
    assert "initialization" not in found.value
    assert found.value["model"]["type"] == "transformer_decoder"


def test_a_directory_is_planned_to_the_last_weight() -> None:
    """Against the sum of the published shapes."""
    made = resolved(job(), directory(GPT2, 300))
    width, inner = 16, 64
    block = 4 * width + 3 * (width * width + width) + width * width + width + width * inner + inner + inner * width + width
    assert plan(made.spec, TEXT).parameters.total == 300 * width + 32 * width + 2 * block + 2 * width


def test_without_the_server_nothing_is_guessed() -> None:
    """What a client says before anything is sent: nothing is wrong, and nothing is known."""
    spec = resolve(job(), None).spec
    assert (spec.model.type, spec.data.tokenizer) == ("hf", None)


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"auto_map": {"AutoModel": "evil.Model"}}, "auto_map"),
        ({"model_type": "mamba"}, "model_type 'mamba' must be one of gpt2, llama, bert"),
        ({"activation_function": "swiglu"}, "activation_function"),
        ({"n_layer": -1}, "n_layer"),
        ({"n_layer": 10**9}, "n_layer"),
        ({"resid_pdrop": 1.5}, "resid_pdrop"),
        ({"layer_norm_epsilon": -1}, "layer_norm_epsilon"),
        ({"n_head": 3}, "heads"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"model_type": "llama", "rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "rope_type"),
        ({"model_type": "llama", "rope_parameters": {"rope_type": "linear", "factor": [2]}}, "factor"),
        ({"model_type": "llama", "rope_parameters": 3}, "rope_parameters"),
        ({"model_type": "llama", "rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"model_type": "llama", "attention_bias": True}, "mlp_bias"),
        ({"model_type": "bert", "position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"model_type": "bert", "tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"model_type": ["gpt2"]}, "model_type"),
    ],
)
def test_a_config_that_is_not_computed_is_refused_by_its_field(config: dict[str, Any], word: str) -> None:
    facts = directory(GPT2 | config, 300)
    (told,) = written(job(), facts).findings
    assert (told.pointer, told.code) == ("/model/source", "hf-unsupported")
    assert word in told.message


@pytest.mark.parametrize(
    ("more", "facts", "pointer"),
    [
        ({}, directory(None), "/model/source"),
        ({}, directory(GPT2), "/data/tokenizer"),
        ({}, directory(GPT2, 301), "/data/tokenizer"),
        ({"initialization": {"start": {"type": "cold"}}}, directory(GPT2, 300), "/model/weights"),
        ({"data": {"source": {"type": "csv", "dataset": "words"}}}, directory(GPT2), "/model/source"),
    ],
)
def test_what_does_not_go_together_is_refused(more: dict[str, Any], facts: DatasetFacts, pointer: str) -> None:
    assert pointer in [finding.pointer for finding in written(job(**more), facts).findings]


@pytest.mark.parametrize(
    "model",
    [
        {"type": "hf"},
        {"type": "hf", "source": 3},
        {"type": "hf", "source": "a b"},
        {"type": "hf", "source": "theirs", "n_layer": 1},
    ],
)
def test_what_is_misspelled_is_left_to_the_grammar(model: dict[str, Any]) -> None:
    value = job(model=model)
    assert source_of(value) is None
    assert json.dumps(opened(value, directory(GPT2)).value) == json.dumps(value)
