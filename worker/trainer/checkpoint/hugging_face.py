"""Transformers under the names and in the layout of Hugging Face's library of that name, whose outputs equal ours."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, assert_never

import torch

from stoker.spec.derived.hugging_face import ACTIVATIONS, architecture_of
from stoker.spec.model import Model, Transformer, TransformerDecoder, TransformerEncoder
from stoker.spec.model.transformer import LearnedPosition, LinearScaling, NtkScaling, RotaryPosition
from worker.trainer.checkpoint.read import Stored
from worker.trainer.data.codec import BytePairs, Codec, Published

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
BERT = {
    "attention.q": "attention.self.query",
    "attention.k": "attention.self.key",
    "attention.v": "attention.self.value",
    "attention.out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "ffn.up": "intermediate.dense",
    "ffn.down": "output.dense",
    "ffn_norm": "output.LayerNorm",
}
BERT_REST = {
    "tokens": "bert.embeddings.word_embeddings",
    "positions": "bert.embeddings.position_embeddings",
    "segments": "bert.embeddings.token_type_embeddings",
    "embedding_norm": "bert.embeddings.LayerNorm",
    "transform": "cls.predictions.transform.dense",
    "transform_norm": "cls.predictions.transform.LayerNorm",
    "pooler": "bert.pooler.dense",
    "head": "classifier",
}
"""Modules outside of blocks."""


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
    architecture = architecture_of(_known(model))
    names = stored.names("model")
    if architecture == "bert":
        for name in sorted(names):
            yield Made.same(stored, name, _of_bert(name))
        return
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
        for layer in range(_known(model).num_layers):
            block, there = f"blocks.{layer}", f"transformer.h.{layer}"
            yield Made.turned(stored, [f"{block}.attention.{part}.{kind}" for part in "qkv"], f"{there}.attn.c_attn.{kind}")
            for ours, theirs in GPT2.items():
                name, new = f"{block}.{ours}.{kind}", f"{there}.{theirs}.{kind}"
                yield Made.same(stored, name, new) if ours.endswith("norm") else Made.turned(stored, [name], new)


def _of_bert(name: str) -> str:
    if name == "head_bias":
        return "cls.predictions.bias"
    module, _, kind = name.rpartition(".")
    if not name.startswith("blocks."):
        return f"{BERT_REST[module]}.{kind}"
    _, index, inner = module.split(".", 2)
    return f"bert.encoder.layer.{index}.{BERT[inner]}.{kind}"


def config_of(model: Model, length: int, vocabulary: int, dtype: torch.dtype, classes: int | None = None) -> dict[str, Any]:
    """config.json. `length`: tokens of the longest context; `classes`: of an encoder whose head is not the vocabulary."""
    spec = _known(model)
    shared: dict[str, Any] = {
        "vocab_size": vocabulary,
        "dtype": str(dtype).removeprefix("torch."),
        "tie_word_embeddings": spec.tie_embeddings,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    match architecture_of(spec):
        case "llama":
            return shared | _llama(spec, length)
        case "bert":
            assert isinstance(spec, TransformerEncoder)
            return shared | _bert(spec, length, classes)
        case _:
            return shared | _gpt2(spec, length)


def _llama(spec: Transformer, length: int) -> dict[str, Any]:
    assert isinstance(spec.position, RotaryPosition)
    base, scaling = spec.position.base, dict[str, Any](rope_type="default")
    match spec.position.scaling:
        case LinearScaling(factor=factor):
            scaling = {"rope_type": "linear", "factor": factor}
        case NtkScaling(factor=factor):  # another base, which is all there is to it
            base *= factor ** (spec.key_width / (spec.key_width - 2))
        case None:
            pass
        case _:
            assert_never(spec.position.scaling)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.inner,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.num_heads,
        "num_key_value_heads": spec.kv_heads,
        "head_dim": spec.key_width,
        "hidden_act": ACTIVATIONS[spec.activation],
        "max_position_embeddings": length,
        "rms_norm_eps": spec.normalization.eps,
        "rope_theta": base,
        "rope_parameters": scaling | {"rope_theta": base},
        "attention_bias": spec.bias,
        "mlp_bias": spec.bias,
        "attention_dropout": spec.attention_dropout,
    }


def _gpt2(spec: Transformer, length: int) -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_embd": spec.hidden_size,
        "n_inner": spec.inner,
        "n_layer": spec.num_layers,
        "n_head": spec.num_heads,
        "n_positions": _rows(spec, length),
        "activation_function": ACTIVATIONS[spec.activation],
        "layer_norm_epsilon": spec.normalization.eps,
        "resid_pdrop": spec.dropout,
        "embd_pdrop": spec.embedding_dropout,
        "attn_pdrop": spec.attention_dropout,
    }


def _bert(spec: TransformerEncoder, length: int, classes: int | None) -> dict[str, Any]:
    head = {} if classes is None else {"id2label": {str(index): f"LABEL_{index}" for index in range(classes)}}
    return head | {
        "architectures": ["BertForMaskedLM" if classes is None else "BertForSequenceClassification"],
        "model_type": "bert",
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.inner,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.num_heads,
        "hidden_act": ACTIVATIONS[spec.activation],
        "max_position_embeddings": _rows(spec, length),
        "type_vocab_size": spec.segments,
        "layer_norm_eps": spec.normalization.eps,
        "hidden_dropout_prob": spec.dropout,
        "attention_probs_dropout_prob": spec.attention_dropout,
        "pad_token_id": None,
    }


def _rows(spec: Transformer, length: int) -> int:
    """Of the table of positions."""
    assert isinstance(spec.position, LearnedPosition)
    return spec.position.max_length or length


def tokenizer_of(codec: Codec | None) -> dict[str, str]:
    """Files by which transformers finds the tokenizer: for byte pairs, and files; it has none like the others, whose map
    is data.json's.
    """
    match codec:
        case BytePairs():
            special: dict[str, str] = {}
        case Published():
            special = dict(codec.purposes)
        case _:
            return {}
    config = special | {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    return {
        "tokenizer.json": json.dumps(json.loads(codec.dump())["tokenizer"], ensure_ascii=False),
        "tokenizer_config.json": json.dumps(config, indent=1),
    }


def special_of(codec: Codec | None) -> dict[str, int | None]:
    """Of config.json: the tokens that begin, end and fill up a text, where the tokenizer has them."""
    if not isinstance(codec, Published):
        return {}
    return {f"{name}_id": codec.id_of(name) for name in ("bos_token", "eos_token", "pad_token")}


def _known(model: Model) -> Transformer:
    if not isinstance(model, TransformerDecoder | TransformerEncoder) or architecture_of(model) is None:
        raise ValueError("transformers has no architecture for this model")
    return model
