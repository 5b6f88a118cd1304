"""Layer lists into modules. Shapes are followed by arithmetic, so that a misfit names its layer."""

import math
from collections.abc import Sequence
from typing import assert_never

import torch
from torch import nn

from stoker.spec.model import layers as spec_layers
from stoker.spec.model.layers import Activate, Conv, Dropout, Flatten, Layer, Layers, Linear, Norm, Pool, Residual
from stoker.spec.model.parts import BatchNorm, LayerNorm, RMSNorm
from worker.trainer.errors import SpecProblem
from worker.trainer.model.parts import build_activation, build_normalization, initialize

Shape = tuple[int, ...]
"""Of one sample: (features,), (channels, length) or (channels, height, width)."""


class Branch(nn.Module):
    """x + layers(x)."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.layers(x)
        return out


class ChannelsLast(nn.Module):
    """A normalisation of the last dimension, applied to the channels of (batch, channels, ...)."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.norm(x.movedim(1, -1)).movedim(-1, 1)
        return out


class GlobalAverage(nn.Module):
    """(batch, channels, ...) → (batch, channels)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2).mean(2)


def build_layers(spec: Layers, shape: Shape, outputs: int) -> nn.Module:
    """(batch, *shape) → (batch, outputs). Raises SpecProblem naming the layer that does not fit."""
    model, end = _stack(spec.layers, shape, "model.layers")
    if end != (outputs,):
        raise SpecProblem(
            f"model.layers: the last layer gives {_text(end)}, the task needs ({outputs},); end with linear units: {outputs}"
        )
    ends = [_last_projection(m) for m in model.modules() if isinstance(m, Branch)]
    initialize(model, spec.init, [m for m in ends if m is not None])
    return model


def _stack(layers: Sequence[Layer], shape: Shape, where: str) -> tuple[nn.Sequential, Shape]:
    modules = []
    for i, layer in enumerate(layers):
        module, shape = _layer(layer, shape, f"{where}[{i}]")
        modules.append(module)
    return nn.Sequential(*modules), shape


def _layer(layer: Layer, shape: Shape, where: str) -> tuple[nn.Module, Shape]:
    match layer:
        case Linear():
            return nn.Linear(shape[-1], layer.units, layer.bias), (*shape[:-1], layer.units)
        case Conv():
            return _conv(layer, shape, where)
        case Pool():
            return _pool(layer, shape, where)
        case Norm():
            return _norm(layer, shape), shape
        case Activate():
            return build_activation(layer.kind), shape
        case Dropout():
            return nn.Dropout(layer.p), shape
        case Flatten():
            return nn.Flatten(), (math.prod(shape),)
        case Residual():
            inner, end = _stack(layer.layers, shape, f"{where}.layers")
            if end != shape:
                raise SpecProblem(f"{where}: a residual stack must keep its shape, but turns {_text(shape)} into {_text(end)}")
            return Branch(inner), shape
        case _:
            assert_never(layer)


def _conv(layer: Conv, shape: Shape, where: str) -> tuple[nn.Module, Shape]:
    extent = _extent(shape, where, "conv")
    kernel, stride = _per_dimension(layer.kernel_size, extent, where), _per_dimension(layer.stride, extent, where)
    padding, dilation = _per_dimension(layer.padding, extent, where), _per_dimension(layer.dilation, extent, where)
    if shape[0] % layer.groups or layer.channels % layer.groups:
        raise SpecProblem(f"{where}.groups: {layer.groups} does not divide {shape[0]} input and {layer.channels} output channels")
    out = _windows(extent, kernel, stride, padding, dilation, where)
    kind = nn.Conv1d if len(extent) == 1 else nn.Conv2d
    module = kind(shape[0], layer.channels, kernel, stride, padding, dilation, layer.groups, layer.bias)  # type: ignore[arg-type]  # tuples of the right length
    return module, (layer.channels, *out)


def _pool(layer: Pool, shape: Shape, where: str) -> tuple[nn.Module, Shape]:
    extent = _extent(shape, where, "pool")
    if layer.kind == "global_avg":
        if layer.kernel_size is not None or layer.stride is not None:
            raise SpecProblem(f"{where}: global_avg takes no kernel_size and no stride")
        return GlobalAverage(), shape[:1]
    kernel = _per_dimension(layer.kernel_size or 2, extent, where)
    stride = _per_dimension(layer.stride, extent, where) if layer.stride is not None else kernel
    out = _windows(extent, kernel, stride, (0,) * len(extent), (1,) * len(extent), where)
    match layer.kind, len(extent):
        case "max", 1:
            return nn.MaxPool1d(kernel, stride), (shape[0], *out)
        case "max", _:
            return nn.MaxPool2d(kernel, stride), (shape[0], *out)
        case _, 1:
            return nn.AvgPool1d(kernel, stride), (shape[0], *out)  # type: ignore[arg-type]  # a tuple of one
        case _:
            return nn.AvgPool2d(kernel, stride), (shape[0], *out)  # type: ignore[arg-type]  # a tuple of two


def _norm(layer: Norm, shape: Shape) -> nn.Module:
    """batch: per feature or channel; layer and rms: over the only dimension, or over the channels of each place."""
    match layer.kind:
        case "batch":
            momentum = 0.1 if layer.momentum is None else layer.momentum
            return build_normalization(BatchNorm(eps=layer.eps, momentum=momentum), shape[0])
        case "layer":
            norm = build_normalization(LayerNorm(eps=layer.eps), shape[0])
        case "rms":
            norm = build_normalization(RMSNorm(eps=layer.eps), shape[0])
        case _:
            assert_never(layer.kind)
    return norm if len(shape) == 1 else ChannelsLast(norm)


def _extent(shape: Shape, where: str, what: str) -> Shape:
    if len(shape) not in (2, 3):
        raise SpecProblem(f"{where}: {what} needs (channels, length) or (channels, height, width), but gets {_text(shape)}")
    return shape[1:]


def _per_dimension(value: "spec_layers.Kernel | spec_layers.Pad", extent: Shape, where: str) -> Shape:
    values = (value,) * len(extent) if isinstance(value, int) else tuple(value)
    if len(values) == 1:
        values *= len(extent)
    if len(values) != len(extent):
        raise SpecProblem(f"{where}: {list(values)} has {len(values)} numbers for {len(extent)} dimensions")
    return values


def _windows(extent: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape, where: str) -> Shape:
    """Places that a window takes along each dimension."""
    out = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(extent, kernel, stride, padding, dilation, strict=True)
    )
    if min(out) < 1:
        raise SpecProblem(f"{where}: a window of {_text(kernel)} does not fit into {_text(extent)}; pad it or pool less before")
    return out


def _last_projection(branch: Branch) -> nn.Module | None:
    return next((m for m in reversed(list(branch.layers)) if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d)), None)


def _text(shape: Shape) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
