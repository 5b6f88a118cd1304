"""Sizes of published models by name: what they become, what may stand beside them, and what they count."""

from typing import Any

import pytest

from stoker.document.explain import explain
from stoker.document.resolve import Resolved, resolve
from stoker.document.schema import job_schema
from stoker.document.sizes import PRESETS
from stoker.errors import SpecError
from stoker.facts import DatasetFacts, TextFacts
from stoker.plan import Limits, plan

ROOMY = Limits(memory_bytes=1 << 60)
TEXT = DatasetFacts(
    name="set", version=1, digest="0" * 64, bytes=10**8, content=TextFacts(bytes=10**8, characters=10**8, distinct_characters=60)
)


def job(model: dict[str, Any], task: str = "causal_lm", vocabulary: int = 50257, length: int = 128) -> dict[str, Any]:
    data = {
        "source": {"type": "text", "dataset": "set"},
        "tokenizer": {"type": "bpe", "vocab_size": vocabulary},
        "sequence": {"length": length},
    }
    return {"task": {"type": task}, "model": model, "data": data, "training": {"max_steps": 1, "batch_size": 8}}


def parameters(found: Resolved) -> int:
    return plan(found.spec, TEXT, limits=ROOMY).parameters.total


PUBLISHED = [
    ("gpt2-124m", "causal_lm", 50257, 124_439_808),
    ("gpt2-medium", "causal_lm", 50257, 354_823_168),
    ("gpt2-large", "causal_lm", 50257, 774_030_080),
    ("gpt2-xl", "causal_lm", 50257, 1_557_611_200),
    ("llama-1.1b", "causal_lm", 32000, 1_100_048_384),
    # the token that stands for what is hidden is one more: BertForMaskedLM and RobertaForMaskedLM
    ("bert-base-uncased", "masked_lm", 30521, 109_514_298),
    ("bert-large-uncased", "masked_lm", 30521, 335_174_458),
    ("roberta-base", "masked_lm", 50264, 124_697_433),
]


@pytest.mark.proves("ARCH-26")
@pytest.mark.parametrize(("name", "task", "vocabulary", "published"), PUBLISHED, ids=[name for name, *_ in PUBLISHED])
def test_published_counts(name: str, task: str, vocabulary: int, published: int) -> None:
    assert parameters(resolve(job({"preset": name}, task, vocabulary), TEXT)) == published


@pytest.mark.proves("ARCH-26")
def test_bert_as_its_authors_count_it() -> None:
    """109,482,240: with the pooler and no head. With the vocabulary head of masked_lm there is no pooler."""
    spec = resolve(job({"preset": "bert-base-uncased"}, "masked_lm", 30521), TEXT).spec
    head = 768 * 768 + 768 + 2 * 768 + 30522
    pooler = 768 * 768 + 768
    assert plan(spec, TEXT, limits=ROOMY).parameters.total - head + pooler == 109_482_240


@pytest.mark.proves("ARCH-26")
def test_what_is_stored_is_written_out_and_says_where_it_came_from() -> None:
    found = resolve(job({"preset": "gpt2-124m", "num_layers": 2, "position": {"type": "rope"}}), TEXT)
    model, origins = found.spec.model, found.origins
    assert model.type == "transformer_decoder"
    assert (model.preset, model.num_layers, model.hidden_size, model.position.type) == (None, 2, 768, "rope")
    assert origins["/model/num_layers"] == origins["/model/position/type"] == "user"
    assert origins["/model/hidden_size"] == origins["/model/type"] == "preset:gpt2-124m"
    assert origins["/model/bias"] == "default"
    assert found.submitted["model"] == {"preset": "gpt2-124m", "num_layers": 2, "position": {"type": "rope"}}
    again = resolve(found.spec.model_dump(mode="json"), TEXT)
    assert (again.digest, again.spec) == (found.digest, found.spec)
    spelled = resolve(job(PRESETS["gpt2-124m"] | {"num_layers": 2, "position": {"type": "rope"}}), TEXT)
    assert spelled.digest == found.digest


@pytest.mark.parametrize(
    ("model", "pointer", "word"),
    [
        ({"preset": "gpt2-125m"}, "/model/preset", "gpt2-124m"),
        ({"preset": "resnet-9000"}, "/model/preset", "not allowed here"),
        ({"type": "transformer_encoder", "preset": "gpt2-124m"}, "/model/preset", "not allowed here"),
        ({"type": "mlp", "preset": "gpt2-124m"}, "/model/preset", "unknown key"),
        ({"preset": 7}, "/model/type", "which kind"),
        ({"preset": "gpt2-124m", "num_head": 3}, "/model/num_head", "unknown key"),
        ({"preset": "gpt2-124m", "num_heads": 7}, "/model/num_heads", "7 heads"),
    ],
)
def test_mistakes_are_named(model: dict[str, Any], pointer: str, word: str) -> None:
    with pytest.raises(SpecError) as raised:
        resolve(job(model), TEXT)
    said = {found.pointer: found.message + (found.hint or "") for found in raised.value.findings}
    assert word in said[pointer]


def test_every_name_is_explained_and_in_the_schema() -> None:
    explained = {name for each in (explain("model.preset"), *explain("model.preset").variants) for name in each.allowed}
    assert explained == PRESETS.keys()
    definition = job_schema()["$defs"]["TransformerDecoder"]
    assert definition["anyOf"] == [{"required": ["type"]}, {"required": ["preset"]}]
    assert "type" not in definition.get("required", [])
