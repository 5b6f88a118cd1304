"""What decoders and encoders have in common. Built by `worker.trainer.model.transformer`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Depth, Knob, Positive, Rate, Size, Spec
from stoker.spec.model.parts import Activation, Init, LayerNorm, NormalInit, Normalization
from stoker.spec.model.sharing import Share

Factor = Annotated[float, Field(ge=1, le=1000)]
Cap = Annotated[float, Field(ge=1e-3, le=1e6)]


class LearnedPosition(Spec):
    """One learned vector per position, added to the token's."""

    type: Literal["learned"] = "learned"
    """Which position encoding this is."""
    max_length: Annotated[Size | None, Knob("tokens", ("memory",), ("ARCH-16",))] = None
    """Rows of the table, at least data.sequence.length; unset, as many."""


class SinusoidalPosition(Spec):
    """Fixed sines and cosines, added to the token's vector (Vaswani et al. 2017)."""

    type: Literal["sinusoidal"] = "sinusoidal"
    """Which position encoding this is."""
    base: Annotated[Positive, Knob(affects=("quality",), rows=("ARCH-16",))] = 10000.0
    """Longest wavelength over 2 pi."""


class LinearScaling(Spec):
    """Positions divided by a factor, so that longer contexts stay in the range that was learned (Chen et al. 2023)."""

    type: Literal["linear"] = "linear"
    """Which scaling this is."""
    factor: Annotated[Factor, Knob(affects=("quality",), rows=("ARCH-16",))] = 2.0
    """What positions are divided by."""


class NtkScaling(Spec):
    """A longer base: slow rotations are stretched by the factor, fast ones stay."""

    type: Literal["ntk"] = "ntk"
    """Which scaling this is."""
    factor: Annotated[Factor, Knob(affects=("quality",), rows=("ARCH-16",))] = 2.0
    """The base is multiplied by factor to the power of dim / (dim - 2)."""


Scaling = Annotated[LinearScaling | NtkScaling, Field(discriminator="type")]


class RotaryPosition(Spec):
    """Rotate queries and keys by their position (Su et al. 2021)."""

    type: Literal["rope"] = "rope"
    """Which position encoding this is."""
    base: Annotated[Positive, Knob(affects=("quality",), rows=("ARCH-16",))] = 10000.0
    """Longest wavelength over 2 pi."""
    dim: Annotated[Size | None, Knob("dimensions", ("quality",), ("ARCH-16",))] = None
    """How many dimensions of each head are rotated, an even number; unset, all of key_dim."""
    scaling: Annotated[Scaling | None, Knob(affects=("quality",), rows=("ARCH-16",))] = None
    """How rotations are slowed down for contexts longer than a model learned with; unset, not at all."""


class AlibiPosition(Spec):
    """No vectors: attention falls linearly with distance, for each head at a slope of its own (Press et al. 2022)."""

    type: Literal["alibi"] = "alibi"
    """Which position encoding this is."""


Position = Annotated[LearnedPosition | SinusoidalPosition | RotaryPosition | AlibiPosition, Field(discriminator="type")]


class Transformer(Spec):
    """Embeddings, and blocks of self-attention and feed-forward layers (Vaswani et al. 2017)."""

    num_layers: Annotated[Depth, Knob("blocks", ("memory", "speed", "quality"), ("ARCH-02", "ARCH-11", "ARCH-12"))] = 4
    """Blocks in the stack."""
    hidden_size: Annotated[Size, Knob("units", ("memory", "speed", "quality"), ("ARCH-03", "ARCH-13"))] = 128
    """Width of the residual stream."""
    embedding_size: Annotated[Size | None, Knob("units", ("memory", "quality"), ("ARCH-13",))] = None
    """Width of the token embedding; unset, hidden_size; another width adds one projection between them (Lan et al. 2020)."""
    ffn_size: Annotated[Size | None, Knob("units", ("memory", "speed", "quality"), ("ARCH-03",))] = None
    """Width inside the feed-forward layer; unset, 4 x hidden_size."""
    num_heads: Annotated[Size, Knob("heads", ("quality",), ("ARCH-14",))] = 4
    """Query heads."""
    num_kv_heads: Annotated[Size | None, Knob("heads", ("memory", "speed"), ("ARCH-14",))] = None
    """Key and value heads, a divisor of num_heads; unset, num_heads."""
    key_dim: Annotated[Size | None, Knob("units per head", ("memory", "speed", "quality"), ("ARCH-15",))] = None
    """Width of each query and key head; unset, hidden_size / num_heads."""
    value_dim: Annotated[Size | None, Knob("units per head", ("memory", "speed", "quality"), ("ARCH-15",))] = None
    """Width of each value head; unset, key_dim."""
    qk_norm: Annotated[bool, Knob(affects=("quality",), rows=("ARCH-08",))] = False
    """Normalise queries and keys by their root mean square before the product."""
    window: Annotated[Size | None, Knob("tokens", ("quality",), ("ARCH-08",))] = None
    """Each token attends to no more than so many tokens on a side, itself counted; unset, to all that it may see."""
    attention_softcap: Annotated[Cap | None, Knob(affects=("memory", "speed", "quality"), rows=("ARCH-08",))] = None
    """Bend attention scores into this bound by cap x tanh(score / cap), without the fused kernel; unset, leave them."""
    position: Annotated[Position, Knob(affects=("quality",), rows=("ARCH-16",))] = LearnedPosition()
    """How the model knows the order of tokens."""
    activation: Annotated[Activation, Knob(affects=("quality",), rows=("ARCH-17",))] = "gelu"
    """Non-linearity of the feed-forward layer."""
    gated_ffn: Annotated[bool, Knob(affects=("memory", "quality"), rows=("ARCH-17",))] = False
    """Multiply the activated branch by a linear one (GLU, Shazeer 2020)."""
    normalization: Annotated[Normalization, Knob(affects=("quality",), rows=("ARCH-22",))] = LayerNorm()
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
    """Give the linear layers of blocks a bias."""
    tie_embeddings: Annotated[bool, Knob(affects=("memory", "quality"), rows=("ARCH-25",))] = True
    """Use the token embedding as the vocabulary head."""
    sharing: Annotated[
        Annotated[tuple[Share, ...], Field(max_length=100)], Knob(affects=("memory", "quality"), rows=("ARCH-25",))
    ] = ()
    """Parts that use the weights of other parts."""
    init: Annotated[Init, Knob(affects=("quality",), rows=("INIT-01",))] = NormalInit(residual_scaling="depth")
    """How weights start."""

    @property
    def embedded(self) -> int:
        """Width of the token embedding."""
        return self.embedding_size or self.hidden_size

    @property
    def inner(self) -> int:
        """Width inside the feed-forward layer."""
        return self.ffn_size or 4 * self.hidden_size

    @property
    def kv_heads(self) -> int:
        return self.num_kv_heads or self.num_heads

    @property
    def key_width(self) -> int:
        """Of one head; heads must divide hidden_size where key_dim is unset."""
        return self.key_dim or self.hidden_size // self.num_heads

    @property
    def value_width(self) -> int:
        """Of one head."""
        return self.value_dim or self.key_width
