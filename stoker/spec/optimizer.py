"""How weights move. Built by `worker.trainer.optimizer`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec._base import Decay, Fraction, Knob, NonNegative, Positive
from stoker.spec.param_groups import Grouped


class SGD(Grouped):
    """Stochastic gradient descent with momentum."""

    type: Literal["sgd"] = "sgd"
    """Which optimizer this is."""
    lr: Annotated[Positive, Knob(affects=("quality",), rows=("OPT-02", "OPT-04"))] = 0.1
    """Peak learning rate; the schedule multiplies it."""
    momentum: Annotated[Decay, Knob(affects=("memory", "quality"), rows=("OPT-03",))] = 0.0
    """Share of the previous update carried into this one."""
    dampening: Annotated[Fraction, Knob(affects=("quality",), rows=("OPT-03",))] = 0.0
    """Share of the gradient kept out of the momentum."""
    nesterov: Annotated[bool, Knob(affects=("quality",), rows=("OPT-16",))] = False
    """Look ahead along the momentum; needs momentum above 0 and dampening 0."""


class Adam(Grouped):
    """Adaptive moments (Kingma and Ba 2015)."""

    type: Literal["adam"] = "adam"
    """Which optimizer this is."""
    lr: Annotated[Positive, Knob(affects=("quality",), rows=("OPT-02", "OPT-05"))] = 1e-3
    """Peak learning rate; the schedule multiplies it."""
    beta1: Annotated[Decay, Knob(affects=("quality",), rows=("OPT-06",))] = 0.9
    """Decay of the first moment."""
    beta2: Annotated[Decay, Knob(affects=("quality",), rows=("OPT-07",))] = 0.999
    """Decay of the second moment."""
    eps: Annotated[Positive, Knob(affects=("quality",), rows=("OPT-08",))] = 1e-8
    """Added to the root of the second moment."""
    amsgrad: Annotated[bool, Knob(affects=("memory", "quality"), rows=("OPT-05",))] = False
    """Use the largest second moment seen (Reddi et al. 2018)."""


class AdamW(Grouped):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    type: Literal["adamw"] = "adamw"
    """Which optimizer this is."""
    lr: Annotated[Positive, Knob(affects=("quality",), rows=("OPT-02", "OPT-05"))] = 1e-3
    """Peak learning rate; the schedule multiplies it."""
    beta1: Annotated[Decay, Knob(affects=("quality",), rows=("OPT-06",))] = 0.9
    """Decay of the first moment."""
    beta2: Annotated[Decay, Knob(affects=("quality",), rows=("OPT-07",))] = 0.999
    """Decay of the second moment."""
    eps: Annotated[Positive, Knob(affects=("quality",), rows=("OPT-08",))] = 1e-8
    """Added to the root of the second moment."""
    weight_decay: Annotated[NonNegative, Knob(affects=("quality",), rows=("OPT-18",))] = 0.01
    """Share of each weight, times the learning rate, taken off per step."""
    amsgrad: Annotated[bool, Knob(affects=("memory", "quality"), rows=("OPT-05",))] = False
    """Use the largest second moment seen (Reddi et al. 2018)."""


Optimizer = Annotated[SGD | Adam | AdamW, Field(discriminator="type")]
