"""How weights start. Drawn by `worker.trainer.model.init`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Knob, Positive, Spec

Distribution = Literal["uniform", "normal"]


class TorchInit(Spec):
    """Leave every layer as PyTorch initialises it."""

    type: Literal["torch_default"] = "torch_default"
    """Which initialisation this is."""


class Normal(Spec):
    """Draw weights from a normal distribution with mean zero; biases are zero."""

    type: Literal["normal"] = "normal"
    """Which initialisation this is."""
    std: Annotated[Positive, Knob(affects=("quality",), rows=("INIT-02",))] = 0.02
    """Standard deviation of the weights."""


class Uniform(Spec):
    """Draw weights evenly from -bound to bound; biases are zero."""

    type: Literal["uniform"] = "uniform"
    """Which initialisation this is."""
    bound: Annotated[Positive, Knob(affects=("quality",), rows=("INIT-02",))] = 0.05
    """Largest size of a weight."""


class TruncNormal(Spec):
    """Draw weights from a normal distribution without its tails; biases are zero."""

    type: Literal["trunc_normal"] = "trunc_normal"
    """Which initialisation this is."""
    std: Annotated[Positive, Knob(affects=("quality",), rows=("INIT-02",))] = 0.02
    """Standard deviation of the normal distribution before its tails are cut off."""
    cutoff: Annotated[Annotated[float, Field(ge=0.1, le=10)], Knob("standard deviations", ("quality",), ("INIT-02",))] = 2.0
    """Where its tails are cut off."""


class Xavier(Spec):
    """Keep variances alike forwards and backwards: std = gain x sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""

    type: Literal["xavier"] = "xavier"
    """Which initialisation this is."""
    distribution: Annotated[Distribution, Knob(affects=("quality",), rows=("INIT-03",))] = "uniform"
    """What weights are drawn from, of that standard deviation."""
    gain: Annotated[Positive, Knob(affects=("quality",), rows=("INIT-03",))] = 1.0
    """Factor of the standard deviation."""


class He(Spec):
    """Keep variances through rectifiers: std = gain of the non-linearity / sqrt(fan) (He et al. 2015)."""

    type: Literal["he"] = "he"
    """Which initialisation this is."""
    distribution: Annotated[Distribution, Knob(affects=("quality",), rows=("INIT-04",))] = "normal"
    """What weights are drawn from, of that standard deviation."""
    mode: Annotated[Literal["fan_in", "fan_out"], Knob(affects=("quality",), rows=("INIT-04",))] = "fan_in"
    """Whether variances are kept on the way forward, by inputs of a unit, or back, by its outputs."""
    nonlinearity: Annotated[
        Literal["relu", "leaky_relu", "tanh", "sigmoid", "selu", "linear"], Knob(affects=("quality",), rows=("INIT-04",))
    ] = "relu"
    """What follows the layers: it decides the gain, sqrt(2) for relu."""


class Lecun(Spec):
    """Keep variances forwards through linear layers: std = 1 / sqrt(fan_in) (LeCun et al. 1998)."""

    type: Literal["lecun"] = "lecun"
    """Which initialisation this is."""
    distribution: Annotated[Distribution, Knob(affects=("quality",), rows=("INIT-01",))] = "normal"
    """What weights are drawn from, of that standard deviation."""


class Orthogonal(Spec):
    """Draw matrices whose rows, or columns, are orthogonal and of one length (Saxe et al. 2014)."""

    type: Literal["orthogonal"] = "orthogonal"
    """Which initialisation this is."""
    gain: Annotated[Positive, Knob(affects=("quality",), rows=("INIT-01",))] = 1.0
    """That length."""


class ConstantWeights(Spec):
    """Give every weight one value, for example zero in a head that is to say nothing at first; biases are zero."""

    type: Literal["constant"] = "constant"
    """Which initialisation this is."""
    value: Annotated[Annotated[float, Field(ge=-1e6, le=1e6)], Knob(affects=("quality",), rows=("INIT-01",))] = 0.0
    """The value."""


class Scaled(Spec):
    """What every drawn initialisation of a whole model has beside its own fields."""

    residual_scaling: Annotated[Literal["none", "depth"], Knob(affects=("quality",), rows=("INIT-01",))] = "none"
    """`depth` divides the std of each residual output projection by sqrt(2 x num_layers), as GPT-2 does."""


class NormalInit(Scaled, Normal):
    """Draw weights from a normal distribution with mean zero; biases are zero."""


class UniformInit(Scaled, Uniform):
    """Draw weights evenly from -bound to bound; biases are zero."""


class TruncNormalInit(Scaled, TruncNormal):
    """Draw weights from a normal distribution without its tails; biases are zero."""


class XavierInit(Scaled, Xavier):
    """Keep variances alike forwards and backwards: std = gain x sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""


class HeInit(Scaled, He):
    """Keep variances through rectifiers: std = gain of the non-linearity / sqrt(fan) (He et al. 2015)."""


class LecunInit(Scaled, Lecun):
    """Keep variances forwards through linear layers: std = 1 / sqrt(fan_in) (LeCun et al. 1998)."""


class OrthogonalInit(Scaled, Orthogonal):
    """Draw matrices whose rows, or columns, are orthogonal and of one length (Saxe et al. 2014)."""


Init = Annotated[
    TorchInit | NormalInit | UniformInit | TruncNormalInit | XavierInit | HeInit | LecunInit | OrthogonalInit,
    Field(discriminator="type"),
]
"""Of a whole model."""
Scheme = Annotated[
    TorchInit | Normal | Uniform | TruncNormal | Xavier | He | Lecun | Orthogonal | ConstantWeights,
    Field(discriminator="type"),
]
"""Of some of its modules."""
