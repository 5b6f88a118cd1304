"""Decoders under the names and in the layout of Hugging Face's transformers, whose logits equal ours."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from stoker.spec.hugging_face import ACTIVATIONS, architecture_of
from stoker.spec.model import Model, TransformerDecoder
from stoker.spec.model.transformer_decoder import RotaryPosition
from worker.trainer.checkpoint.read import Stored
from worker.trainer.data.tokenizer import BytePairs, Codec

LLAMA = {
    "attention_norm": "input_layernorm",
    "attention.q": "self_attn.q_proj",
    "attention.k": "self_attn.k_proj",
    "attention.v": "self_attn.v_proj",
    "attention.out": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn.gate": "mlp.gate_proj",
    "ffn.up": "mlp.up_proj",
    "ffn.down": "mlp.down_proj",
}
GPT2 = {
    "attention_norm": "ln_1",
    "attention.out": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn.up": "mlp.c_fc",
    "ffn.down": "mlp.c_proj",
}
"""Modules of a block; queries, keys and values are one there, and matrices stand the other way round."""


@dataclass(frozen=True)
class Made:
    """A tensor of the new file, and how it comes about."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], torch.Tensor]

    @staticmethod
    def same(stored: Stored, name: str, new: str | None = None) -> "Made":
        return Made(new or name, stored.shape("model", name), stored.dtype("model", name), partial(stored.whole, "model", name))

    @staticmethod
    def turned(stored: Stored, names: list[str], new: str) -> "Made":
        """Matrices (out, in) one after the other as (in, outs); vectors one after the other."""
        first, rows = stored.shape("model", names[0]), sum(stored.shape("model", name)[0] for name in names)
        shape = (rows,) if len(first) == 1 else (first[1], rows)
        return Made(
            new,
            shape,
            stored.dtype("model", names[0]),
            lambda: torch.cat([stored.whole("model", n) for n in names]).t().contiguous(),
        )


def tensors_of(model: Model, stored: Stored) -> Iterator[Made]:
    """Raises ValueError for a model that a rule should have refused."""
    architecture = architecture_of(_decoder(model))
    names = stored.names("model")
    if "head.weight" in names:
        yield Made.same(stored, "head.weight", "lm_head.weight")
    if architecture == "llama":
        yield Made.same(stored, "tokens.weight", "model.embed_tokens.weight")
        yield Made.same(stored, "norm.weight", "model.norm.weight")
        for name in sorted(n for n in names if n.startswith("blocks.")):
            _, index, rest = name.split(".", 2)
            module, _, kind = rest.rpartition(".")
            yield Made.same(stored, name, f"model.layers.{index}.{LLAMA[module]}.{kind}")
        return
    yield Made.same(stored, "tokens.weight", "transformer.wte.weight")
    yield Made.same(stored, "positions.weight", "transformer.wpe.weight")
    for kind in ("weight", "bias"):
        yield Made.same(stored, f"norm.{kind}", f"transformer.ln_f.{kind}")
        for layer in range(_decoder(model).num_layers):
            block, there = f"blocks.{layer}", f"transformer.h.{layer}"
            yield Made.turned(stored, [f"{block}.attention.{part}.{kind}" for part in "qkv"], f"{there}.attn.c_attn.{kind}")
            for ours, theirs in GPT2.items():
                name, new = f"{block}.{ours}.{kind}", f"{there}.{theirs}.{kind}"
                yield Made.same(stored, name, new) if ours.endswith("norm") else Made.turned(stored, [name], new)


def config_of(model: Model, length: int, vocabulary: int, dtype: torch.dtype) -> dict[str, Any]:
    """config.json. `length`: tokens of the longest context."""
    spec = _decoder(model)
    shared = {
        "vocab_size": vocabulary,
        "dtype": str(dtype).removeprefix("torch."),
        "tie_word_embeddings": spec.tie_embeddings,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    width = spec.ffn_size or 4 * spec.hidden_size
    if architecture_of(spec) == "llama":
        assert isinstance(spec.position, RotaryPosition)
        return shared | {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": spec.hidden_size,
            "intermediate_size": width,
            "num_hidden_layers": spec.num_layers,
            "num_attention_heads": spec.num_heads,
            "num_key_value_heads": spec.num_kv_heads or spec.num_heads,
            "head_dim": spec.key_dim or spec.hidden_size // spec.num_heads,
            "hidden_act": ACTIVATIONS[spec.activation],
            "max_position_embeddings": length,
            "rms_norm_eps": spec.normalization.eps,
            "rope_theta": spec.position.base,
            "rope_parameters": {"rope_type": "default", "rope_theta": spec.position.base},
            "attention_bias": spec.bias,
            "mlp_bias": spec.bias,
            "attention_dropout": spec.attention_dropout,
        }
    return shared | {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_embd": spec.hidden_size,
        "n_inner": width,
        "n_layer": spec.num_layers,
        "n_head": spec.num_heads,
        "n_positions": length,
        "activation_function": ACTIVATIONS[spec.activation],
        "layer_norm_epsilon": spec.normalization.eps,
        "resid_pdrop": spec.dropout,
        "embd_pdrop": spec.embedding_dropout,
        "attn_pdrop": spec.attention_dropout,
    }


def tokenizer_of(codec: Codec | None) -> dict[str, str]:
    """Files by which transformers finds the tokenizer: for byte pairs; it has none like the others, whose map is data.json's."""
    if not isinstance(codec, BytePairs):
        return {}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    return {
        "tokenizer.json": json.dumps(json.loads(codec.dump())["tokenizer"], ensure_ascii=False),
        "tokenizer_config.json": json.dumps(config, indent=1),
    }


def _decoder(model: Model) -> TransformerDecoder:
    if not isinstance(model, TransformerDecoder) or architecture_of(model) is None:
        raise ValueError("transformers has no architecture for this model")
    return model
