"""A typed stack of layers whose shapes are checked before anything runs. Built by `worker.trainer.model.layers`."""

import math
from typing import Annotated, Literal, Union, assert_never

from pydantic import Field

from stoker.spec.base import Count, Depth, Knob, Natural, Positive, Rate, Size, Spec
from stoker.spec.model.parts import Activation, Init, TorchInit
from stoker.spec.model.recurrent import GRU, LSTM, RNN, Bias
from stoker.spec.model.sharing import Share

Extent = Annotated[int, Field(ge=1, le=4096)]
Kernel = Extent | Annotated[tuple[Extent, ...], Field(min_length=1, max_length=2)]
Pad = Annotated[int, Field(ge=0, le=4096)] | Annotated[tuple[Natural, ...], Field(min_length=1, max_length=2)]
USUAL_GROUPS = 32
"""Of group normalisation, as in Wu and He 2018."""


class Linear(Spec):
    """Fully connected layer over the last dimension."""

    type: Literal["linear"] = "linear"
    """Which layer this is."""
    units: Annotated[Size, Knob("units", ("memory", "speed", "quality"), ("ARCH-05", "ARCH-03"))]
    """Output features."""
    bias: Annotated[bool, Knob(affects=("memory",), rows=("ARCH-05",))] = True
    """Add a learned shift."""


class Conv(Spec):
    """Convolution, in one dimension over (channels, length) or in two over (channels, height, width)."""

    type: Literal["conv"] = "conv"
    """Which layer this is."""
    channels: Annotated[Size, Knob("channels", ("memory", "speed", "quality"), ("ARCH-06",))]
    """Output channels."""
    kernel_size: Annotated[Kernel, Knob("pixels", ("memory", "speed", "quality"), ("ARCH-06",))] = 3
    """Side of the window, one number or one per dimension."""
    stride: Annotated[Kernel, Knob("pixels", ("memory", "speed"), ("ARCH-06",))] = 1
    """Distance between two windows."""
    padding: Annotated[Pad | Literal["same"], Knob("pixels", ("memory",), ("ARCH-06",))] = 0
    """Zeros added on each side, one number or one per dimension; `same` adds what keeps the size, at stride 1."""
    dilation: Annotated[Kernel, Knob("pixels", ("quality",), ("ARCH-06",))] = 1
    """Distance between two taps of the window."""
    groups: Annotated[Count, Knob("groups", ("memory", "speed"), ("ARCH-06",))] = 1
    """Blocks of channels that do not see each other; it divides both channel counts."""
    bias: Annotated[bool, Knob(affects=("memory",), rows=("ARCH-06",))] = True
    """Add a learned shift per channel."""


class Pool(Spec):
    """Reduce windows, or everything, to one value."""

    type: Literal["pool"] = "pool"
    """Which layer this is."""
    kind: Annotated[
        Literal["max", "avg", "global_avg", "global_max", "adaptive_avg", "adaptive_max"],
        Knob(affects=("quality",), rows=("ARCH-07",)),
    ] = "max"
    """Maximum or mean: of windows; of all but channels or features, which also flattens; or of as many windows as `output_size` says."""
    kernel_size: Annotated[Kernel | None, Knob("pixels", ("memory", "speed"), ("ARCH-07",))] = None
    """Side of the window, for max and avg; unset, 2."""
    stride: Annotated[Kernel | None, Knob("pixels", ("memory", "speed"), ("ARCH-07",))] = None
    """Distance between two windows, for max and avg; unset, the kernel size."""
    padding: Annotated[Pad | None, Knob("pixels", ("memory",), ("ARCH-07",))] = None
    """Added on each side, at most half a window, for max and avg; a mean counts it as zeros, and it is never a maximum; unset, 0."""
    output_size: Annotated[Kernel | None, Knob("pixels", ("memory", "speed"), ("ARCH-07",))] = None
    """Values per dimension that are left, for adaptive_avg and adaptive_max; unset, 1."""

    @property
    def slides(self) -> bool:
        """Whether it has windows of a size of their own."""
        return self.kind in ("max", "avg")


class Norm(Spec):
    """Normalise activations: batch over the batch, group over groups of channels, layer and rms over channels or features."""

    type: Literal["norm"] = "norm"
    """Which layer this is."""
    kind: Annotated[Literal["batch", "layer", "rms", "group"], Knob(affects=("quality",), rows=("ARCH-21", "ARCH-22"))] = "batch"
    """Over what it normalises."""
    eps: Annotated[Positive, Knob(affects=("quality",), rows=("ARCH-21", "ARCH-22"))] = 1e-5
    """Added to the variance before the square root."""
    momentum: Annotated[Annotated[float, Field(ge=0, le=1)] | None, Knob(affects=("quality",), rows=("ARCH-21",))] = None
    """Share of the newest batch in the running statistics; batch only; unset, 0.1."""
    affine: Annotated[bool, Knob(affects=("memory",), rows=("ARCH-21", "ARCH-22"))] = True
    """Learn a scale and, but for rms, a shift per channel or feature."""
    track_running_stats: Annotated[bool | None, Knob(affects=("quality",), rows=("ARCH-21",))] = None
    """Keep a running mean and variance to judge with; batch only; unset, true."""
    sync: Annotated[bool | None, Knob(affects=("speed", "quality"), rows=("ARCH-21",))] = None
    """Take the statistics over the batches of all ranks together; batch only, on GPUs, with strategy ddp or fsdp; unset, false."""
    groups: Annotated[Count | None, Knob("groups", ("quality",), ("ARCH-22",))] = None
    """Groups of channels, each normalised apart; group only; unset, the largest divisor of the channels that 32 has too."""

    def groups_of(self, channels: int) -> int:
        """As they will be."""
        return self.groups or math.gcd(USUAL_GROUPS, channels)


class Activate(Spec):
    """Apply a non-linearity."""

    type: Literal["activation"] = "activation"
    """Which layer this is."""
    kind: Annotated[Activation, Knob(affects=("quality",), rows=("ARCH-17",))] = "relu"
    """Which non-linearity."""


class AttentionLayer(Spec):
    """Self-attention: each step, or each place of a picture, takes what it needs of all others; the shape stays."""

    type: Literal["attention"] = "attention"
    """Which layer this is."""
    num_heads: Annotated[Count, Knob("heads", ("quality",), ("ARCH-04", "ARCH-14"))] = 1
    """Parts that attend each on its own."""
    key_dim: Annotated[Size | None, Knob("units", ("memory", "speed", "quality"), ("ARCH-04", "ARCH-15"))] = None
    """Width of each head; unset, features over num_heads, which must then divide them."""
    causal: Annotated[bool, Knob(affects=("quality",), rows=("ARCH-04",))] = False
    """Let each step see itself and those before it only."""
    dropout: Annotated[Rate, Knob("probability", ("quality",), ("REG-05",))] = 0.0
    """Dropout on the shares of attention."""
    bias: Annotated[bool, Knob(affects=("memory",), rows=("ARCH-04",))] = True
    """Give the four projections a bias."""


class RecurrentLayer(Spec):
    """Read (steps, features) one step after the other."""

    type: Literal["rnn"] = "rnn"
    """Which layer this is."""
    cell: Annotated[Literal["rnn", "lstm", "gru"], Knob(affects=("quality",), rows=("ARCH-09", "ARCH-10"))] = "lstm"
    """What is done at each step."""
    units: Annotated[Size, Knob("units", ("memory", "speed", "quality"), ("ARCH-09", "ARCH-10"))]
    """Width of the state, in each direction."""
    num_layers: Annotated[Depth, Knob("layers", ("memory", "speed", "quality"), ("ARCH-02",))] = 1
    """Recurrent layers, each reading what the one below says at every step."""
    bidirectional: Annotated[bool, Knob(affects=("memory", "speed", "quality"), rows=("ARCH-09", "ARCH-10"))] = False
    """Read the sequence in both directions, each with weights of its own."""
    dropout: Annotated[Rate, Knob("probability", ("quality",), ("REG-05",))] = 0.0
    """Dropout on what one of several layers hands to the next."""
    bias: Annotated[bool, Knob(affects=("memory",), rows=("ARCH-09",))] = True
    """Give the cells a bias."""
    nonlinearity: Annotated[Literal["tanh", "relu"] | None, Knob(affects=("quality",), rows=("ARCH-09",))] = None
    """What bends the sum of input and state, for cell rnn; unset, tanh."""
    forget_bias: Annotated[Bias | None, Knob(affects=("quality",), rows=("ARCH-10",))] = None
    """Where the bias of the forget gate starts, for cell lstm, for example 1 to remember at first; unset, as init says."""
    says: Annotated[Literal["steps", "end"], Knob(affects=("memory", "quality"), rows=("ARCH-09", "ARCH-10"))] = "end"
    """What it hands on: what it says at all steps, or what each direction says once it has read everything."""

    @property
    def width(self) -> int:
        """Of what it says at each step."""
        return self.units * (2 if self.bidirectional else 1)

    @property
    def model(self) -> RNN | LSTM | GRU:
        """The recurrent network that it is."""
        shared = {
            "num_layers": self.num_layers,
            "hidden_size": self.units,
            "bidirectional": self.bidirectional,
            "dropout": self.dropout,
            "bias": self.bias,
        }
        match self.cell:
            case "rnn":
                return RNN.model_validate(shared | {"nonlinearity": self.nonlinearity or "tanh"})
            case "lstm":
                return LSTM.model_validate(shared | {"forget_bias": self.forget_bias})
            case "gru":
                return GRU.model_validate(shared)
            case _:
                assert_never(self.cell)


class EmbeddingLayer(Spec):
    """Tokens of a text to vectors: (steps,) to (steps, size). The first layer of a stack that reads text, and only there."""

    type: Literal["embedding"] = "embedding"
    """Which layer this is."""
    size: Annotated[Size, Knob("units", ("memory", "speed", "quality"), ("ARCH-04", "ARCH-13"))]
    """Width of each token's vector."""
    positions: Annotated[bool, Knob(affects=("memory", "quality"), rows=("ARCH-16",))] = False
    """Add a learned vector for each place in the sequence, without which attention cannot tell places apart."""


class Dropout(Spec):
    """Drop values in training."""

    type: Literal["dropout"] = "dropout"
    """Which layer this is."""
    p: Annotated[Rate, Knob("probability", ("quality",), ("REG-05",))] = 0.5
    """Probability that a value is dropped."""


class Flatten(Spec):
    """Turn any sample into one vector."""

    type: Literal["flatten"] = "flatten"
    """Which layer this is."""


class Reshape(Spec):
    """See the same numbers in another shape, for example the rows of a table as pictures."""

    type: Literal["reshape"] = "reshape"
    """Which layer this is."""
    shape: Annotated[Annotated[tuple[Size, ...], Field(min_length=1, max_length=3)], Knob("units", (), ("ARCH-04",))]
    """Of one sample: [features], [channels, length] or [channels, height, width]; of as many numbers as there are."""


class Rearrange(Spec):
    """Turn places with channels into steps with features, or the reverse."""

    type: Literal["rearrange"] = "rearrange"
    """Which layer this is."""
    to: Annotated[Literal["steps", "channels"], Knob("", (), ("ARCH-04",))] = "steps"
    """steps: (channels, length) or (channels, height, width) to (steps, features), for rnn and attention; channels: back to (channels, length), for conv and pool."""


class Residual(Spec):
    """Add the input of a stack, or what a shortcut makes of it, to the stack's output; shapes must agree."""

    type: Literal["residual"] = "residual"
    """Which layer this is."""
    layers: Annotated[
        Annotated[tuple["Layer", ...], Field(min_length=1, max_length=100)], Knob("layers", ("quality",), ("ARCH-04",))
    ]
    """The stack that is skipped."""
    shortcut: Annotated[
        Annotated[tuple["Layer", ...], Field(max_length=100)], Knob("layers", ("memory", "quality"), ("ARCH-04",))
    ] = ()
    """What the input goes through on its way around, for example a convolution that brings it to the same shape; empty for nothing."""


Layer = Annotated[
    Union[
        Linear,
        Conv,
        Pool,
        Norm,
        Activate,
        AttentionLayer,
        RecurrentLayer,
        EmbeddingLayer,
        Dropout,
        Flatten,
        Reshape,
        Rearrange,
        Residual,
    ],
    Field(discriminator="type"),
]
Residual.model_rebuild()


class Layers(Spec):
    """Layers applied in order; the last one must give the task's outputs."""

    type: Literal["layers"] = "layers"
    """Which architecture this is."""
    layers: Annotated[
        Annotated[tuple[Layer, ...], Field(min_length=1, max_length=1000)],
        Knob("layers", ("memory", "speed", "quality"), ("ARCH-02", "ARCH-04")),
    ]
    """The stack, first to last."""
    sharing: Annotated[
        Annotated[tuple[Share, ...], Field(max_length=100)], Knob(affects=("memory", "quality"), rows=("ARCH-25",))
    ] = ()
    """Parts that use the weights of other parts."""
    init: Annotated[Init, Knob(affects=("quality",), rows=("INIT-01",))] = TorchInit()
    """How weights start."""
