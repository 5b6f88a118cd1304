"""Parts that several architectures share: activations, normalisations, initialisation."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Fraction, Knob, Positive, Spec
from stoker.spec.model.init import Init as Init
from stoker.spec.model.init import NormalInit as NormalInit
from stoker.spec.model.init import TorchInit as TorchInit

Activation = Literal[
    "relu",
    "gelu",
    "gelu_tanh",
    "silu",
    "tanh",
    "sigmoid",
    "leaky_relu",
    "elu",
    "relu_squared",
    "relu6",
    "selu",
    "mish",
    "softplus",
    "hardswish",
    "identity",
]


class BatchNorm(Spec):
    """Normalise each feature over the batch (Ioffe and Szegedy 2015)."""

    type: Literal["batch"] = "batch"
    """Which normalisation this is."""
    eps: Annotated[Positive, Knob(affects=("quality",), rows=("ARCH-21",))] = 1e-5
    """Added to the variance before the square root."""
    momentum: Annotated[Fraction, Knob(affects=("quality",), rows=("ARCH-21",))] = 0.1
    """Share of the newest batch in the running mean and variance."""
    affine: Annotated[bool, Knob(affects=("memory",), rows=("ARCH-21",))] = True
    """Learn a scale and a shift per feature."""
    track_running_stats: Annotated[bool, Knob(affects=("quality",), rows=("ARCH-21",))] = True
    """Keep a running mean and variance to judge with; false judges every sample by the statistics of the batch it is in."""
    sync: Annotated[bool, Knob(affects=("speed", "quality"), rows=("ARCH-21",))] = False
    """Take the statistics over the batches of all ranks together; on GPUs, with strategy ddp or fsdp."""


class LayerNorm(Spec):
    """Normalise each sample over its features (Ba et al. 2016)."""

    type: Literal["layer"] = "layer"
    """Which normalisation this is."""
    eps: Annotated[Positive, Knob(affects=("quality",), rows=("ARCH-22",))] = 1e-5
    """Added to the variance before the square root."""
    bias: Annotated[bool, Knob(affects=("memory",), rows=("ARCH-22",))] = True
    """Learn a shift beside the scale."""


class RMSNorm(Spec):
    """Divide each sample by its root mean square (Zhang and Sennrich 2019)."""

    type: Literal["rms"] = "rms"
    """Which normalisation this is."""
    eps: Annotated[Positive, Knob(affects=("quality",), rows=("ARCH-22",))] = 1e-6
    """Added to the mean square before the root."""


Normalization = Annotated[BatchNorm | LayerNorm | RMSNorm, Field(discriminator="type")]
