"""Which decoders are an architecture that Hugging Face's transformers computes too, and what keeps the others from being one."""

from typing import Literal

from stoker.spec.model import TransformerDecoder
from stoker.spec.model.parts import LayerNorm, RMSNorm
from stoker.spec.model.transformer_decoder import LearnedPosition, RotaryPosition

Architecture = Literal["gpt2", "llama"]
ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "silu": "silu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
}
"""What transformers calls ours; it has no other."""


def architecture_of(model: TransformerDecoder) -> Architecture | None:
    """None when there is none."""
    if not differences(model, "llama"):
        return "llama"
    return None if differences(model, "gpt2") else "gpt2"


def nearest(model: TransformerDecoder) -> tuple[Architecture, list[str]]:
    """The one that the fewest fields keep from being it, and what they would have to be."""
    llama, gpt2 = differences(model, "llama"), differences(model, "gpt2")
    return ("llama", llama) if len(llama) < len(gpt2) else ("gpt2", gpt2)


def differences(model: TransformerDecoder, architecture: Architecture) -> list[str]:
    """Fields of `model` with the value that the architecture wants."""
    width = model.key_dim or model.hidden_size // model.num_heads
    wanted = {
        "qk_norm: false": model.qk_norm,
        "norm_placement: pre": model.norm_placement != "pre",
        f"activation: one of {', '.join(ACTIVATIONS)}": model.activation not in ACTIVATIONS,
    }
    if architecture == "llama":
        wanted |= {
            "position: rope over all of key_dim": not isinstance(model.position, RotaryPosition)
            or model.position.dim not in (None, width),
            "normalization: rms": not isinstance(model.normalization, RMSNorm),
            "gated_ffn: true": not model.gated_ffn,
        }
    else:
        wanted |= {
            "position: learned": not isinstance(model.position, LearnedPosition),
            "normalization: layer with bias": not (isinstance(model.normalization, LayerNorm) and model.normalization.bias),
            "gated_ffn: false": model.gated_ffn,
            "bias: true": not model.bias,
            "num_kv_heads: null": model.num_kv_heads not in (None, model.num_heads),
            "key_dim: null": width * model.num_heads != model.hidden_size,
        }
    return [field for field, differs in wanted.items() if differs]
