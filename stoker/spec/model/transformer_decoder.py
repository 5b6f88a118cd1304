"""A GPT-style decoder. Built by `worker.trainer.model.transformer_decoder`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec._base import Depth, Knob, Positive, Rate, Size, Spec
from stoker.spec.model.parts import Activation, Init, LayerNorm, NormalInit, RMSNorm


class LearnedPosition(Spec):
    """One learned vector per position, added to the token's."""

    type: Literal["learned"] = "learned"
    """Which position encoding this is."""


class SinusoidalPosition(Spec):
    """Fixed sines and cosines, added to the token's vector (Vaswani et al. 2017)."""

    type: Literal["sinusoidal"] = "sinusoidal"
    """Which position encoding this is."""
    base: Annotated[Positive, Knob(affects=("quality",), rows=("ARCH-16",))] = 10000.0
    """Longest wavelength over 2 pi."""


class RotaryPosition(Spec):
    """Rotate queries and keys by their position (Su et al. 2021)."""

    type: Literal["rope"] = "rope"
    """Which position encoding this is."""
    base: Annotated[Positive, Knob(affects=("quality",), rows=("ARCH-16",))] = 10000.0
    """Longest wavelength over 2 pi."""
    dim: Annotated[Size | None, Knob("dimensions", ("quality",), ("ARCH-16",))] = None
    """How many dimensions of each head are rotated, an even number; unset, all of key_dim."""


Position = Annotated[LearnedPosition | SinusoidalPosition | RotaryPosition, Field(discriminator="type")]


class TransformerDecoder(Spec):
    """Token and position embeddings, blocks of causal self-attention and feed-forward, a norm, and a vocabulary head."""

    type: Literal["transformer_decoder"] = "transformer_decoder"
    """Which architecture this is."""
    num_layers: Annotated[Depth, Knob("blocks", ("memory", "speed", "quality"), ("ARCH-02", "ARCH-11"))] = 4
    """Blocks in the stack."""
    hidden_size: Annotated[Size, Knob("units", ("memory", "speed", "quality"), ("ARCH-03", "ARCH-13"))] = 128
    """Width of the residual stream and of the embeddings."""
    ffn_size: Annotated[Size | None, Knob("units", ("memory", "speed", "quality"), ("ARCH-03",))] = None
    """Width inside the feed-forward layer; unset, 4 x hidden_size."""
    num_heads: Annotated[Size, Knob("heads", ("quality",), ("ARCH-14",))] = 4
    """Query heads."""
    num_kv_heads: Annotated[Size | None, Knob("heads", ("memory", "speed"), ("ARCH-14",))] = None
    """Key and value heads, a divisor of num_heads; unset, num_heads."""
    key_dim: Annotated[Size | None, Knob("units per head", ("memory", "speed", "quality"), ("ARCH-15",))] = None
    """Width of each query, key and value head; unset, hidden_size / num_heads."""
    qk_norm: Annotated[bool, Knob(affects=("quality",), rows=("ARCH-08",))] = False
    """Normalise queries and keys by their root mean square before the product."""
    position: Annotated[Position, Knob(affects=("quality",), rows=("ARCH-16",))] = LearnedPosition()
    """How the model knows the order of tokens."""
    activation: Annotated[Activation, Knob(affects=("quality",), rows=("ARCH-17",))] = "gelu"
    """Non-linearity of the feed-forward layer."""
    gated_ffn: Annotated[bool, Knob(affects=("memory", "quality"), rows=("ARCH-17",))] = False
    """Multiply the activated branch by a linear one (GLU, Shazeer 2020)."""
    normalization: Annotated[
        Annotated[LayerNorm | RMSNorm, Field(discriminator="type")], Knob(affects=("quality",), rows=("ARCH-22",))
    ] = LayerNorm()
    """Normalisation in each block and before the head."""
    norm_placement: Annotated[Literal["pre", "post"], Knob(affects=("quality",), rows=("ARCH-22",))] = "pre"
    """Normalise the input of each sub-layer, or the sum after it."""
    dropout: Annotated[Rate, Knob("probability", ("quality",), ("REG-05",))] = 0.0
    """Dropout on each residual branch."""
    attention_dropout: Annotated[Rate, Knob("probability", ("quality",), ("REG-05",))] = 0.0
    """Dropout on attention weights."""
    embedding_dropout: Annotated[Rate, Knob("probability", ("quality",), ("REG-05",))] = 0.0
    """Dropout on the sum of token and position embeddings."""
    bias: Annotated[bool, Knob(affects=("memory",), rows=("ARCH-05",))] = True
    """Give linear layers a bias; the head never has one."""
    tie_embeddings: Annotated[bool, Knob(affects=("memory", "quality"), rows=("ARCH-25",))] = True
    """Use the token embedding as the head."""
    init: Annotated[Init, Knob(affects=("quality",), rows=("INIT-01",))] = NormalInit(residual_scaling="depth")
    """How weights start."""
