"""A GPT-style decoder. Built by `worker.trainer.model.transformer_decoder`."""

from typing import Annotated, Literal

from stoker.spec.base import Knob
from stoker.spec.model.transformer import Cap, LearnedPosition, RotaryPosition, SinusoidalPosition, Transformer

__all__ = ["LearnedPosition", "RotaryPosition", "SinusoidalPosition", "TransformerDecoder"]

DecoderPreset = Literal["gpt2-124m", "gpt2-medium", "gpt2-large", "gpt2-xl", "gpt3-small", "gpt3-175b", "llama-1.1b"]


class TransformerDecoder(Transformer):
    """Token and position embeddings, blocks of causal self-attention and feed-forward, a norm, and a vocabulary head."""

    type: Literal["transformer_decoder"] = "transformer_decoder"
    """Which architecture this is."""
    preset: Annotated[DecoderPreset | None, Knob(rows=("ARCH-26",))] = None
    """Sizes of a published model; its fields are written out when a job is submitted, those given beside it win, and this is null then."""
    final_softcap: Annotated[Cap | None, Knob(affects=("quality",), rows=("ARCH-08",))] = None
    """Bend logits into this bound by cap x tanh(logit / cap); unset, leave them."""
