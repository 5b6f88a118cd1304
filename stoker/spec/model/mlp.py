"""A stack of fully connected layers. Built by `worker.trainer.model.mlp`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Knob, Rate, Size, Spec
from stoker.spec.model.parts import Activation, Init, Normalization, TorchInit
from stoker.spec.model.sharing import Share


class MLP(Spec):
    """Linear, normalisation, activation, dropout for each hidden size, then a linear head."""

    type: Literal["mlp"] = "mlp"
    """Which architecture this is."""
    hidden_sizes: Annotated[
        Annotated[tuple[Size, ...], Field(max_length=1000)],
        Knob("units", ("memory", "speed", "quality"), ("ARCH-01", "ARCH-02", "ARCH-03")),
    ] = (128,)
    """Width of each hidden layer, first to last; empty for a linear model."""
    activation: Annotated[Activation, Knob(affects=("quality",), rows=("ARCH-17", "ARCH-18", "ARCH-19", "ARCH-20"))] = "relu"
    """Non-linearity after each hidden layer."""
    normalization: Annotated[Normalization | None, Knob(affects=("quality",), rows=("ARCH-21", "ARCH-22"))] = None
    """Normalisation before each activation; null for none."""
    dropout: Annotated[Rate, Knob("probability", ("quality",), ("REG-05",))] = 0.0
    """Probability that a hidden unit is dropped in training."""
    bias: Annotated[bool, Knob(affects=("memory",), rows=("ARCH-05",))] = True
    """Give each linear layer a bias."""
    sharing: Annotated[
        Annotated[tuple[Share, ...], Field(max_length=100)], Knob(affects=("memory", "quality"), rows=("ARCH-25",))
    ] = ()
    """Parts that use the weights of other parts."""
    init: Annotated[Init, Knob(affects=("quality",), rows=("INIT-01",))] = TorchInit()
    """How weights start."""
