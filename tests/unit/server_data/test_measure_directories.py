"""What is kept of a Hugging Face directory at upload, and what of one is refused, by the name of its file."""

import json
from pathlib import Path

import pytest

from server.datasets.measure.__main__ import measure
from server.datasets.measure.reject import Rejected
from stoker.facts import WeightFacts
from tests.support.directories import bert_tokenizer, gpt2_directory, gpt2_weights, llama_tokenizer


def measured(folder: Path, files: dict[str, bytes]) -> WeightFacts:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    found = measure([(name, folder / name) for name in sorted(files)], None, None)
    assert isinstance(found, WeightFacts)
    return found


@pytest.fixture(scope="module")
def gpt() -> dict[str, bytes]:
    return gpt2_directory()


def test_config_and_tokenizer_are_kept(tmp_path: Path, gpt: dict[str, bytes]) -> None:
    found, weights = measured(tmp_path, gpt), gpt2_weights(280)
    assert (found.tensors, found.parameters) == (len(weights), sum(weight.size for weight in weights.values()))
    config = json.loads(gpt["config.json"])
    del config["id2label"]
    assert found.config == config
    assert (found.vocabulary, found.mask_id, found.pad_id) == (280, None, None)


@pytest.mark.parametrize(
    ("tokenizer", "said", "mask", "pad"),
    [
        (bert_tokenizer(), None, 4, 0),
        (bert_tokenizer(), {"mask_token": {"content": "[UNK]"}, "pad_token": "[SEP]"}, 1, 3),
        (llama_tokenizer(), {"pad_token": "</s>", "model_max_length": 10**30}, None, 2),
        (llama_tokenizer(), {"pad_token": "<nowhere>"}, None, None),
    ],
)
def test_tokens_with_a_purpose_are_found(
    tmp_path: Path, gpt: dict[str, bytes], tokenizer: object, said: dict[str, object] | None, mask: int | None, pad: int | None
) -> None:
    files = {"model.safetensors": gpt["model.safetensors"], "tokenizer.json": str(getattr(tokenizer, "to_str")()).encode()}  # noqa: B009
    if said is not None:
        files["tokenizer_config.json"] = json.dumps(said).encode()
    found = measured(tmp_path, files)
    assert (found.mask_id, found.pad_id) == (mask, pad)


def test_unigrams_are_counted_by_their_places(tmp_path: Path, gpt: dict[str, bytes]) -> None:
    """Their vocabulary is a list; a token that was added may stand far behind it."""
    made = {"model": {"type": "Unigram", "vocab": [["a", -1.0], ["b", -2.0]]}, "added_tokens": [{"id": 9, "content": "<mask>"}]}
    found = measured(tmp_path, gpt | {"tokenizer.json": json.dumps(made).encode()})
    assert (found.vocabulary, found.mask_id) == (10, 9)


def test_a_tokenizer_of_another_kind_is_none(tmp_path: Path, gpt: dict[str, bytes]) -> None:
    assert measured(tmp_path, gpt | {"tokenizer.json": b'{"type": "byte"}'}).vocabulary is None


INDEX = {"metadata": {}, "weight_map": {"transformer.wte.weight": "model-00001-of-00002.safetensors"}}


@pytest.mark.parametrize(
    ("change", "drop", "word"),
    [
        ({"pytorch_model.bin": b"PK\x03\x04"}, ["model.safetensors"], "ZIP"),
        ({"pytorch_model.bin": b"\x80\x02."}, ["model.safetensors"], "pickle"),
        ({"pytorch_model.bin": b"PK\x03\x04"}, [], "pytorch_model.bin"),
        ({"modeling_evil.py": b"import os"}, [], "modeling_evil.py"),
        ({"config.json": b"{"}, [], "config.json"),
        ({"config.json": b"[1]"}, [], "config.json must hold a JSON object"),
        ({"config.json": b'{"a": NaN}'}, [], "config.json"),
        ({"config.json": b'{"a": "\\ud800"}'}, [], "config.json"),
        ({"config.json": b'{"a": "\\u0000"}'}, [], "config.json"),
        ({"config.json": b'{"a": 1' + b"0" * 40 + b"}"}, [], "config.json"),
        ({"config.json": b"[" * 5000}, [], "config.json"),
        ({"config.json": json.dumps({"a": "x" * 70_000}).encode()}, [], "config.json"),
        ({"tokenizer.json": b"{"}, [], "tokenizer.json"),
        ({"tokenizer.json": b'{"model": {"vocab": {"a": -1}}}'}, [], "tokenizer.json"),
        ({"tokenizer.json": b'{"model": {"vocab": {"a": 1000000000}}}'}, [], "tokenizer.json"),
        ({"tokenizer_config.json": b"{"}, [], "tokenizer_config.json"),
        ({"model.safetensors.index.json": json.dumps(INDEX).encode()}, [], "not uploaded"),
        ({"model.safetensors.index.json": b'{"weight_map": [1]}'}, [], "weight_map"),
    ],
)
def test_a_broken_directory_is_refused_by_the_name_of_its_file(
    tmp_path: Path, gpt: dict[str, bytes], change: dict[str, bytes], drop: list[str], word: str
) -> None:
    with pytest.raises(Rejected) as refused:
        measured(tmp_path, {name: data for name, data in (gpt | change).items() if name not in drop})
    assert word in f"{refused.value.path}: {refused.value.message}"
