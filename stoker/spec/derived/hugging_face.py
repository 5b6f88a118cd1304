"""Which transformers are an architecture that Hugging Face's transformers computes too, and what keeps the others from being one."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from stoker.spec.model import Transformer, TransformerDecoder, TransformerEncoder
from stoker.spec.model.parts import Activation, LayerNorm, RMSNorm
from stoker.spec.model.transformer import LearnedPosition, LinearScaling, RotaryPosition
from stoker.text import shown

Architecture = Literal["gpt2", "llama", "bert"]
ACTIVATIONS: dict[Activation, str] = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "silu": "silu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
}
"""What transformers calls ours; it has no other."""
HEADS = ("tie_embeddings", "head_transform")
"""Fields that say what stands at an encoder's end."""


def architecture_of(model: Transformer) -> Architecture | None:
    """None when there is none."""
    return next((name for name in _candidates(model) if not differences(model, name)), None)


def trunk_of(model: Transformer) -> Architecture | None:
    """The one whose weights it can start from: all of it but what an encoder says at its end, which a task may want otherwise."""
    known = architecture_of(model)
    if known is not None or not isinstance(model, TransformerEncoder):
        return known
    return "bert" if all(field.startswith(HEADS) for field in differences(model, "bert")) else None


def nearest(model: Transformer) -> tuple[Architecture, list[str]]:
    """The one that the fewest fields keep from being it, and what they would have to be."""
    ranked = [(name, differences(model, name)) for name in _candidates(model)]
    return min(ranked, key=lambda each: len(each[1]))


def _candidates(model: Transformer) -> tuple[Architecture, ...]:
    return ("bert",) if isinstance(model, TransformerEncoder) else ("gpt2", "llama")


def differences(model: Transformer, architecture: Architecture) -> list[str]:
    """Fields of `model` with the value that the architecture wants."""
    wanted = {
        "qk_norm: false": model.qk_norm,
        "window: null": model.window is not None,
        "attention_softcap: null": model.attention_softcap is not None,
        "embedding_size: null": model.embedded != model.hidden_size,
        "value_dim: null": model.value_width != model.key_width,
        f"norm_placement: {'post' if architecture == 'bert' else 'pre'}": (model.norm_placement == "post")
        != (architecture == "bert"),
        f"activation: one of {', '.join(ACTIVATIONS)}": model.activation not in ACTIVATIONS,
    }
    if isinstance(model, TransformerDecoder):
        wanted |= {"final_softcap: null": model.final_softcap is not None}
    if architecture == "llama":
        wanted |= {
            "position: rope over all of key_dim": not isinstance(model.position, RotaryPosition)
            or model.position.dim not in (None, model.key_width),
            "normalization: rms": not isinstance(model.normalization, RMSNorm),
            "gated_ffn: true": not model.gated_ffn,
        }
    else:
        wanted |= {
            "position: learned": not isinstance(model.position, LearnedPosition),
            "normalization: layer with bias": not (isinstance(model.normalization, LayerNorm) and model.normalization.bias),
            "gated_ffn: false": model.gated_ffn,
            "bias: true": not model.bias,
            "num_kv_heads: null": model.kv_heads != model.num_heads,
            "key_dim: null": model.key_width * model.num_heads != model.hidden_size,
        }
    if isinstance(model, TransformerEncoder):
        wanted |= {
            "segments: 1 or more": model.segments == 0,
            "embedding_norm: true": not model.embedding_norm,
            "tie_embeddings: true": not model.tie_embeddings,
            "head_transform: true for masked_lm, or pooler: true with pooling: first": not model.head_transform
            and not (model.pooler and model.pooling == "first"),
        }
    return [field for field, differs in wanted.items() if differs]


@dataclass(frozen=True)
class Configured:
    """A model of theirs, as one of ours."""

    model: TransformerDecoder | TransformerEncoder
    vocabulary: int
    length: int
    """Tokens of the longest context."""


MOST_LAYERS = 10_000
MOST_DROPOUT = 1 - 1e-6
"""One would drop everything."""


class _Config:
    """A config.json, strictly: what is not understood and would change outputs is an error."""

    def __init__(self, value: Mapping[str, Any]) -> None:
        self._value = value

    def number(self, *names: str, default: int | None = None, most: int = 1_000_000) -> int:
        value = next((self._value[name] for name in names if self._value.get(name) is not None), default)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise ValueError(f"config.json: {names[0]} must be a whole number between 1 and {most}")
        return value

    def real(self, name: str, default: float, low: float = 1e-12, high: float = 1e12) -> float:
        value = self._value.get(name, default)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(f"config.json: {name} must be a number between {low:g} and {high:g}")
        return float(value)

    def rate(self, name: str, default: float) -> float:
        """A probability of dropout."""
        return self.real(name, default, 0.0, MOST_DROPOUT)

    def section(self, *names: str) -> "_Config":
        """The first of these mappings that is there and not empty."""
        value: object = next((self._value[name] for name in names if self._value.get(name)), {})
        if not isinstance(value, dict):
            raise ValueError(f"config.json: {names[0]} must be a mapping")
        return _Config(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self._value.get(name, default)
        if not isinstance(value, bool):
            raise ValueError(f"config.json: {name} must be true or false")
        return value

    def word(self, *names: str, default: str) -> str:
        """What is no word equals none."""
        return str(next((self._value[name] for name in names if self._value.get(name) is not None), default))

    def words(self, name: str) -> tuple[object, ...]:
        value = self._value.get(name)
        return tuple(value) if isinstance(value, list) else ()

    def activation(self, name: str, default: str) -> Activation:
        value = self._value.get(name, default)
        value = {"gelu_new": "gelu_pytorch_tanh", "gelu_fast": "gelu_pytorch_tanh", "swish": "silu"}.get(str(value), value)
        found = next((ours for ours, theirs in ACTIVATIONS.items() if theirs == value), None)
        if found is None:
            raise ValueError(f"config.json: {name} must be one of {', '.join(ACTIVATIONS.values())}")
        return found

    def must(self, wanted: Mapping[str, object]) -> None:
        """Keys that change what is computed have the value that we compute, where they are there at all."""
        for name, value in wanted.items():
            if self._value.get(name) not in (value, None, {}):
                raise ValueError(f"config.json: {name} other than {json.dumps(value)} is not supported")


def configured(value: object) -> Configured:
    """What a config.json describes. Raises ValueError, naming the key, for what we do not compute."""
    if not isinstance(value, dict):
        raise ValueError("config.json is not a mapping")
    config = _Config(value)
    config.must({"auto_map": None, "quantization_config": None, "is_encoder_decoder": False, "add_cross_attention": False})
    match value.get("model_type"):
        case "gpt2":
            found = _gpt2(config)
        case "llama":
            found = _llama(config)
        case "bert":
            found = _bert(config)
        case other:
            known = ", ".join(get_args(Architecture))
            raise ValueError(f"config.json: model_type {shown(other)} must be one of {known}")
    if found.model.hidden_size % found.model.num_heads and found.model.key_dim is None:
        raise ValueError("config.json: the number of heads does not divide the width")
    if found.model.num_heads % found.model.kv_heads:
        raise ValueError("config.json: num_key_value_heads does not divide num_attention_heads")
    return found


def _gpt2(config: _Config) -> Configured:
    config.must({"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False})
    width, length = config.number("n_embd", default=768), config.number("n_positions", default=1024)
    model = TransformerDecoder(
        num_layers=config.number("n_layer", default=12, most=MOST_LAYERS),
        hidden_size=width,
        num_heads=config.number("n_head", default=12),
        ffn_size=config.number("n_inner", default=4 * width),
        position=LearnedPosition(max_length=length),
        activation=config.activation("activation_function", "gelu_new"),
        normalization=LayerNorm(eps=config.real("layer_norm_epsilon", 1e-5)),
        dropout=config.rate("resid_pdrop", 0.1),
        embedding_dropout=config.rate("embd_pdrop", 0.1),
        attention_dropout=config.rate("attn_pdrop", 0.1),
        tie_embeddings=config.flag("tie_word_embeddings", True),
    )
    return Configured(model, config.number("vocab_size", default=50257), length)


def _llama(config: _Config) -> Configured:
    config.must({"pretraining_tp": 1})
    heads, width = config.number("num_attention_heads", default=32), config.number("hidden_size", default=4096)
    biased = config.flag("attention_bias", False)
    if config.flag("mlp_bias", False) != biased:
        raise ValueError("config.json: attention_bias and mlp_bias must be the same")
    rope = config.section("rope_parameters", "rope_scaling")
    kind = rope.word("rope_type", "type", default="default")
    if kind not in ("default", "linear"):
        raise ValueError("config.json: rope_type other than default and linear is not supported")
    rope.must({"partial_rotary_factor": 1.0})
    config.must({"partial_rotary_factor": 1.0})
    scaling = LinearScaling(factor=rope.real("factor", 1.0, 1.0, 1000.0)) if kind == "linear" else None
    model = TransformerDecoder(
        num_layers=config.number("num_hidden_layers", default=32, most=MOST_LAYERS),
        hidden_size=width,
        num_heads=heads,
        num_kv_heads=config.number("num_key_value_heads", default=heads),
        key_dim=config.number("head_dim", default=max(1, width // heads)),
        ffn_size=config.number("intermediate_size", default=11008),
        position=RotaryPosition(base=rope.real("rope_theta", config.real("rope_theta", 10000.0)), scaling=scaling),
        activation=config.activation("hidden_act", "silu"),
        gated_ffn=True,
        normalization=RMSNorm(eps=config.real("rms_norm_eps", 1e-6)),
        attention_dropout=config.rate("attention_dropout", 0.0),
        bias=biased,
        tie_embeddings=config.flag("tie_word_embeddings", False),
    )
    return Configured(model, config.number("vocab_size", default=32000), config.number("max_position_embeddings", default=2048))


def _bert(config: _Config) -> Configured:
    config.must({"position_embedding_type": "absolute", "is_decoder": False, "tie_word_embeddings": True, "pruned_heads": {}})
    length, filled = (
        config.number("max_position_embeddings", default=512),
        "BertForMaskedLM" in config.words("architectures"),
    )
    model = TransformerEncoder(
        num_layers=config.number("num_hidden_layers", default=12, most=MOST_LAYERS),
        hidden_size=config.number("hidden_size", default=768),
        num_heads=config.number("num_attention_heads", default=12),
        ffn_size=config.number("intermediate_size", default=3072),
        position=LearnedPosition(max_length=length),
        segments=config.number("type_vocab_size", default=2),
        embedding_norm=True,
        activation=config.activation("hidden_act", "gelu"),
        normalization=LayerNorm(eps=config.real("layer_norm_eps", 1e-12)),
        norm_placement="post",
        dropout=config.rate("hidden_dropout_prob", 0.1),
        embedding_dropout=config.rate("hidden_dropout_prob", 0.1),
        attention_dropout=config.rate("attention_probs_dropout_prob", 0.1),
        head_transform=filled,
        pooler=not filled,
        pooling="first",
    )
    return Configured(model, config.number("vocab_size", default=30522), length)
