"""Shapes through a stack of layers, by arithmetic: what `worker.trainer.model` will build, without building it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from stoker.spec.model.layers import Activate, Conv, Dropout, Flatten, Layer, Linear, Norm, Pool, Residual

Shape = tuple[int, ...]
"""Of one sample: (features,), (channels, length) or (channels, height, width)."""


@dataclass(frozen=True)
class Misfit(Exception):  # it is a finding before it is an error
    """A layer that cannot take what the one before it gives."""

    kind: str
    """dimensions, groups, numbers, window or residual."""
    pointer: str
    """From the stack: `/3/layers/0`."""
    holes: dict[str, Any]


def infer(layers: Sequence[Layer], shape: Shape, at: str = "") -> Shape:
    """The shape after all layers. Raises Misfit at the first that does not fit."""
    for index, layer in enumerate(layers):
        shape = _after(layer, shape, f"{at}/{index}")
    return shape


def _after(layer: Layer, shape: Shape, at: str) -> Shape:
    match layer:
        case Linear(units=units):
            return (*shape[:-1], units)
        case Conv():
            return _conv(layer, shape, at)
        case Pool(kind="global_avg"):
            _extent(shape, at, "pool")
            return shape[:1]
        case Pool():
            return _pool(layer, shape, at)
        case Flatten():
            return (math.prod(shape),)
        case Residual(layers=inner):
            end = infer(inner, shape, f"{at}/layers")
            if end != shape:
                raise Misfit("residual", at, {"given": written(shape), "end": written(end)})
            return shape
        case Norm() | Activate() | Dropout():
            return shape
        case _:
            assert_never(layer)


def _conv(layer: Conv, shape: Shape, at: str) -> Shape:
    extent = _extent(shape, at, "conv")
    if shape[0] % layer.groups or layer.channels % layer.groups:
        raise Misfit("groups", f"{at}/groups", {"groups": layer.groups, "inputs": shape[0], "outputs": layer.channels})
    kernel, stride = _numbers(layer.kernel_size, extent, f"{at}/kernel_size"), _numbers(layer.stride, extent, f"{at}/stride")
    padding, dilation = _numbers(layer.padding, extent, f"{at}/padding"), _numbers(layer.dilation, extent, f"{at}/dilation")
    spans = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    padded = tuple(size + 2 * p for size, p in zip(extent, padding, strict=True))
    return (layer.channels, *_windows(padded, spans, stride, at))


def _pool(layer: Pool, shape: Shape, at: str) -> Shape:
    extent = _extent(shape, at, "pool")
    kernel = _numbers(layer.kernel_size or 2, extent, f"{at}/kernel_size")
    stride = _numbers(layer.stride, extent, f"{at}/stride") if layer.stride is not None else kernel
    return (shape[0], *_windows(extent, kernel, stride, at))


def _windows(extent: Shape, window: Shape, stride: Shape, at: str) -> Shape:
    out = tuple((size - w) // s + 1 for size, w, s in zip(extent, window, stride, strict=True))
    if min(out) < 1:
        raise Misfit("window", at, {"window": written(window), "extent": written(extent)})
    return out


def _extent(shape: Shape, at: str, kind: str) -> Shape:
    if len(shape) not in (2, 3):
        raise Misfit("dimensions", at, {"kind": kind, "given": written(shape)})
    return shape[1:]


def _numbers(value: int | tuple[int, ...], extent: Shape, at: str) -> Shape:
    values = (value,) if isinstance(value, int) else value
    if len(values) not in (1, len(extent)):
        raise Misfit("numbers", at, {"given": len(values), "dimensions": len(extent)})
    return values * len(extent) if len(values) == 1 else values


def written(shape: Shape) -> str:
    """`(3, 32, 32)` for messages."""
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
