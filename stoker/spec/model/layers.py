"""A typed stack of layers whose shapes are checked before anything runs. Built by `worker.trainer.model.layers`."""

from typing import Annotated, Literal, Union

from pydantic import Field

from stoker.spec._base import Count, Knob, Natural, Positive, Rate, Size, Spec
from stoker.spec.model.parts import Activation, Init, TorchInit

Extent = Annotated[int, Field(ge=1, le=4096)]
Kernel = Extent | Annotated[tuple[Extent, ...], Field(min_length=1, max_length=2)]
Pad = Annotated[int, Field(ge=0, le=4096)] | Annotated[tuple[Natural, ...], Field(min_length=1, max_length=2)]


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
    padding: Annotated[Pad, Knob("pixels", ("memory",), ("ARCH-06",))] = 0
    """Zeros added on each side."""
    dilation: Annotated[Kernel, Knob("pixels", ("quality",), ("ARCH-06",))] = 1
    """Distance between two taps of the window."""
    groups: Annotated[Count, Knob("groups", ("memory", "speed"), ("ARCH-06",))] = 1
    """Blocks of channels that do not see each other; it divides both channel counts."""
    bias: Annotated[bool, Knob(affects=("memory",), rows=("ARCH-06",))] = True
    """Add a learned shift per channel."""


class Pool(Spec):
    """Reduce windows to one value."""

    type: Literal["pool"] = "pool"
    """Which layer this is."""
    kind: Annotated[Literal["max", "avg", "global_avg"], Knob(affects=("quality",), rows=("ARCH-07",))] = "max"
    """Maximum, mean, or the mean over everything but channels (which also flattens)."""
    kernel_size: Annotated[Kernel | None, Knob("pixels", ("memory", "speed"), ("ARCH-07",))] = None
    """Side of the window; not for global_avg; unset, 2."""
    stride: Annotated[Kernel | None, Knob("pixels", ("memory", "speed"), ("ARCH-07",))] = None
    """Distance between two windows; not for global_avg; unset, the kernel size."""


class Norm(Spec):
    """Normalise activations: batch over the batch, layer and rms over the last dimension or the channels."""

    type: Literal["norm"] = "norm"
    """Which layer this is."""
    kind: Annotated[Literal["batch", "layer", "rms"], Knob(affects=("quality",), rows=("ARCH-21", "ARCH-22"))] = "batch"
    """Over what it normalises."""
    eps: Annotated[Positive, Knob(affects=("quality",), rows=("ARCH-21", "ARCH-22"))] = 1e-5
    """Added to the variance before the square root."""
    momentum: Annotated[Annotated[float, Field(ge=0, le=1)] | None, Knob(affects=("quality",), rows=("ARCH-21",))] = None
    """Share of the newest batch in the running statistics; batch only; unset, 0.1."""


class Activate(Spec):
    """Apply a non-linearity."""

    type: Literal["activation"] = "activation"
    """Which layer this is."""
    kind: Annotated[Activation, Knob(affects=("quality",), rows=("ARCH-17",))] = "relu"
    """Which non-linearity."""


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


class Residual(Spec):
    """Add the input of a stack to its output; shapes must agree."""

    type: Literal["residual"] = "residual"
    """Which layer this is."""
    layers: Annotated[
        Annotated[tuple["Layer", ...], Field(min_length=1, max_length=100)], Knob("layers", ("quality",), ("ARCH-04",))
    ]
    """The stack that is skipped."""


Layer = Annotated[
    Union[Linear, Conv, Pool, Norm, Activate, Dropout, Flatten, Residual],
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
    init: Annotated[Init, Knob(affects=("quality",), rows=("INIT-01",))] = TorchInit()
    """How weights start."""
