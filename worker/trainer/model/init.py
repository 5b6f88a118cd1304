"""Weights as they start: one rule for every layer, however an architecture is put together."""

import math
from collections.abc import Collection, Iterator
from typing import assert_never

import torch
from torch import nn

from stoker.spec.model.init import (
    ConstantWeights,
    He,
    Init,
    Lecun,
    Normal,
    Orthogonal,
    Scheme,
    TorchInit,
    TruncNormal,
    Uniform,
    Xavier,
)


def initialize(model: nn.Module, spec: Init, branch_outputs: Collection[nn.Module] = ()) -> None:
    """Draw weights in the order of the model's modules. `branch_outputs` are the last projections of its residual branches."""
    if isinstance(spec, TorchInit):
        return
    depth = math.sqrt(len(branch_outputs)) if spec.residual_scaling == "depth" and branch_outputs else 1.0
    for module in model.modules():
        draw(module, spec)
        if depth != 1 and any(module is branch for branch in branch_outputs):
            for weight in _matrices(module):
                weight.div_(depth)


@torch.no_grad()
def draw(module: nn.Module, spec: Scheme) -> bool:
    """One layer's weights, its biases zero; what it holds inside is left alone. False for a module without such weights."""
    matrices = list(_matrices(module))
    if not matrices:
        return False
    if isinstance(spec, TorchInit):
        module.reset_parameters()  # type: ignore[operator]  # every such layer has it
        return True
    for weight in matrices:
        if not weight.is_meta:
            fill(weight, spec)
    for name, param in module.named_parameters(recurse=False):
        if name.startswith("bias"):
            param.zero_()
    return True


def _matrices(module: nn.Module) -> Iterator[torch.Tensor]:
    """Weights with their outputs first, without gradient; those of a recurrent layer gate by gate."""
    match module:
        case nn.modules.conv._ConvTransposeNd():
            yield module.weight.detach().transpose(0, 1)
        case nn.Linear() | nn.Embedding() | nn.modules.conv._ConvNd():
            yield module.weight.detach()
        case nn.RNNBase():
            gates = {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
            for name, param in module.named_parameters(recurse=False):
                if name.startswith("weight"):
                    yield from param.detach().chunk(gates if "_hr_" not in name else 1)
        case _:
            return


def fill(weight: torch.Tensor, spec: Scheme) -> None:
    """(outputs, inputs, *kernel), in place."""
    match spec:
        case Normal(std=std):
            nn.init.normal_(weight, std=std)
        case Uniform(bound=bound):
            nn.init.uniform_(weight, -bound, bound)
        case TruncNormal(std=std, cutoff=cutoff):
            nn.init.trunc_normal_(weight, std=std, a=-cutoff * std, b=cutoff * std)
        case Xavier(gain=gain):
            inputs, outputs = nn.init._calculate_fan_in_and_fan_out(weight)
            _spread(weight, spec.distribution, gain * math.sqrt(2 / (inputs + outputs)))
        case He(mode=mode):
            inputs, outputs = nn.init._calculate_fan_in_and_fan_out(weight)
            gain = nn.init.calculate_gain(spec.nonlinearity)  # of leaky_relu: the slope 0.01 that our activation has
            _spread(weight, spec.distribution, gain / math.sqrt(inputs if mode == "fan_in" else outputs))
        case Lecun():
            inputs, _ = nn.init._calculate_fan_in_and_fan_out(weight)
            _spread(weight, spec.distribution, 1 / math.sqrt(inputs))
        case Orthogonal(gain=gain):
            drawn = torch.empty(weight.shape)  # its factorisation wants memory in order
            weight.copy_(nn.init.orthogonal_(drawn, gain))
        case ConstantWeights(value=value):
            nn.init.constant_(weight, value)
        case TorchInit():
            raise AssertionError("a layer does that itself")
        case _:
            assert_never(spec)


def _spread(weight: torch.Tensor, distribution: str, std: float) -> None:
    if distribution == "normal":
        nn.init.normal_(weight, std=std)
    else:
        nn.init.uniform_(weight, -math.sqrt(3) * std, math.sqrt(3) * std)
