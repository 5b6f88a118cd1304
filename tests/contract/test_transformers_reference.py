"""Same weights, same outputs as Hugging Face's transformers; randomly made models, written and read as safetensors.

Outputs are compared in float64, which both sides use throughout, also where they ask for float32. In float32 either side is up to
5e-4 away from the exact result, and how far depends on the processor.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from worker.trainer.checkpoint.from_hugging_face import read_hugging_face
from worker.trainer.model import build_model
from worker.trainer.model.transformer_encoder import Encoder, PooledEncoder, build_transformer_encoder

VOCABULARY, LENGTH = 101, 32
MAKE = """
import sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
import torch
from safetensors.torch import save_file
from transformers import (BertConfig, BertForMaskedLM, BertModel, GPT2Config, GPT2LMHeadModel, GPT2Model, LlamaConfig, LlamaForCausalLM)
from transformers import modeling_rope_utils
from transformers.models.llama import modeling_llama
from transformers.utils import logging
logging.set_verbosity_error()
class InFloat64:
    # what torch is to modules that convert to float32
    float = float32 = torch.float64
    def __getattr__(self, name):
        return getattr(torch, name)
modeling_llama.torch = modeling_rope_utils.torch = InFloat64()
torch.Tensor.float = torch.Tensor.double
torch.manual_seed(0)
root, rows, length = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
gpt = dict(vocab_size=rows, n_positions=length, n_embd=24, n_layer=2, n_head=4, initializer_range=0.2)
other = dict(vocab_size=rows, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
             max_position_embeddings=length, initializer_range=0.2)
stretched = {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}
made = {
    "gpt2": GPT2LMHeadModel(GPT2Config(**gpt)),
    "gpt2-relu-untied": GPT2LMHeadModel(GPT2Config(**gpt, activation_function="relu", tie_word_embeddings=False)),
    "llama": LlamaForCausalLM(LlamaConfig(**other, num_key_value_heads=2)),
    "llama-stretched": LlamaForCausalLM(LlamaConfig(**other, rope_parameters=stretched, attention_bias=True, mlp_bias=True)),
    "bert-masked": BertForMaskedLM(BertConfig(**other)),
    "bert": BertModel(BertConfig(**other)),
}
for name, model in made.items():
    for key, weight in model.named_parameters():
        if "bias" in key or "orm" in key or "ln_" in key:  # fresh ones are zeros and ones, which prove nothing
            torch.nn.init.normal_(weight, 1.0 if "weight" in key else 0.0, 0.3)
    model.eval().save_pretrained(root / name)
    model.double()
    ids, segments = torch.randint(0, rows, (3, length)), torch.randint(0, 2, (3, length))
    with torch.no_grad():
        told = model(ids, token_type_ids=segments) if name == "bert" else model(ids)
    said = {"hidden": told.last_hidden_state, "pooled": told.pooler_output} if name == "bert" else {"logits": told.logits}
    save_file({"ids": ids, "segments": segments, **{key: value.contiguous() for key, value in said.items()}}, root / f"{name}.said")
"""
BOUND = 1e-10
"""Largest difference of outputs whose spread is about 1: some hundred thousand roundings of float64."""
LANGUAGE = ["gpt2", "gpt2-relu-untied", "llama", "llama-stretched", "bert-masked"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that transformers made and what they answered, made in another interpreter."""
    folder = tmp_path_factory.mktemp("transformers")
    command = [sys.executable, "-c", MAKE, str(folder), str(VOCABULARY), str(LENGTH)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture
def float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of angles, which a model makes in float64 and rounds to float32, stay as they are."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


@pytest.mark.proves("ARCH-11", "ARCH-12")
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", LANGUAGE)
def test_logits_equal(root: Path, name: str) -> None:
    found, said = read_hugging_face(root / name), load_file(root / f"{name}.said")
    assert (found.configured.vocabulary, found.configured.length) == (VOCABULARY, LENGTH)
    model = build_model(found.configured.model, (LENGTH,), VOCABULARY, text=True).double().eval()
    model.load_state_dict(dict(found.tensors))
    assert found.unexpected == ()
    with torch.no_grad():
        ours = model(said["ids"])
    assert said["logits"].std() > 0.5, "logits that say nothing prove nothing"
    assert (ours - said["logits"]).abs().max() < BOUND


@pytest.mark.proves("ARCH-12")
@pytest.mark.usefixtures("float64")
def test_encoded_text_equals_with_segments_and_pooler(root: Path) -> None:
    found, said = read_hugging_face(root / "bert"), load_file(root / "bert.said")
    spec = found.configured.model
    assert spec.type == "transformer_encoder"
    model = build_transformer_encoder(spec, (LENGTH,), 5, text=True, vocabulary=VOCABULARY).double().eval()
    assert isinstance(model, PooledEncoder)
    assert model.pooler is not None
    told = model.load_state_dict(dict(found.tensors), strict=False)
    assert (sorted(told.missing_keys), told.unexpected_keys, found.unexpected) == (["head.bias", "head.weight"], [], ())
    with torch.no_grad():
        hidden = Encoder.encoded(model, said["ids"], said["segments"])
        pooled = torch.tanh(model.pooler(hidden[:, 0]))
    assert (hidden - said["hidden"]).abs().max() < BOUND
    assert (pooled - said["pooled"]).abs().max() < BOUND


def test_a_model_in_several_files_and_without_prefix(root: Path, tmp_path: Path) -> None:
    """As older checkpoints of GPT-2 are: names begin after `transformer.`."""
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(root / "gpt2/model.safetensors").items()}
    names = sorted(tensors)
    for number, part in enumerate((names[::2], names[1::2])):
        save_file({name: tensors[name] for name in part}, tmp_path / f"model-{number}.safetensors")
    (tmp_path / "config.json").write_bytes((root / "gpt2/config.json").read_bytes())
    whole, parts = read_hugging_face(root / "gpt2").tensors, read_hugging_face(tmp_path).tensors
    assert whole.keys() == parts.keys()
    assert all(np.array_equal(whole[name], parts[name]) for name in whole)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "remote code": ({"auto_map": {"AutoModel": "evil.Model"}}, "auto_map"),
    "another architecture": ({"model_type": "mamba"}, "must be one of gpt2, llama, bert"),
    "scaled otherwise": ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    "quantized": ({"quantization_config": {"bits": 4}}, "quantization_config"),
    "a text for a number": ({"n_layer": "twelve"}, "n_layer"),
    "heads that do not divide": ({"n_head": 5}, "heads"),
    "an unknown activation": ({"activation_function": "__import__"}, "activation_function"),
    "too large a number": ({"n_embd": 10**9}, "n_embd"),
}


@pytest.mark.parametrize(("change", "word"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_understood_is_refused(root: Path, tmp_path: Path, change: dict[str, Any], word: str) -> None:
    config = json.loads((root / "gpt2/config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=word):
        read_hugging_face(tmp_path)


def test_pickled_weights_are_not_read(root: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((root / "gpt2/config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ValueError, match="pickled weights are not read"):
        read_hugging_face(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(ValueError, match="is not a safetensors file"):
        read_hugging_face(tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="not JSON"):
        read_hugging_face(tmp_path)
