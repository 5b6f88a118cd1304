"""MLP specs into modules."""

import math
from itertools import pairwise

from torch import nn

from stoker.spec.model.init import TorchInit
from stoker.spec.model.mlp import MLP
from worker.trainer.errors import SpecProblem
from worker.trainer.model.parts import build_activation, build_normalization, initialize


def build_mlp(spec: MLP, shape: tuple[int, ...], outputs: int) -> nn.Module:
    """(batch, *shape) → (batch, outputs); pictures are flattened."""
    if not isinstance(spec.init, TorchInit) and spec.init.residual_scaling != "none":
        raise SpecProblem("model.init.residual_scaling: an mlp has no residual branches; set it to none")
    sizes = [math.prod(shape), *spec.hidden_sizes]
    layers: list[nn.Module] = [nn.Flatten()] if len(shape) > 1 else []
    for inputs, units in pairwise(sizes):
        layers.append(nn.Linear(inputs, units, spec.bias))
        if spec.normalization is not None:
            layers.append(build_normalization(spec.normalization, units))
        layers.append(build_activation(spec.activation))
        if spec.dropout > 0:
            layers.append(nn.Dropout(spec.dropout))
    model = nn.Sequential(*layers, nn.Linear(sizes[-1], outputs, spec.bias))
    initialize(model, spec.init)
    return model
