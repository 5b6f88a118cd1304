"""A stack of layers on paper, as `worker.trainer.model.layers` builds it."""

import math
from typing import assert_never

from stoker.plan.parts import normalized
from stoker.plan.tape import INT64, Tape, Value
from stoker.spec.model.layers import Activate, Conv, Dropout, Flatten, Layer, Layers, Linear, Norm, Pool, Residual
from stoker.spec.model.parts import BatchNorm, LayerNorm, Normalization, RMSNorm
from stoker.spec.model.shapes import infer

NORMS: dict[str, Normalization] = {"batch": BatchNorm(), "layer": LayerNorm(), "rms": RMSNorm()}


def play_layers(tape: Tape, spec: Layers, value: Value) -> Value:
    """Outputs of one micro-batch. Raises Misfit for a layer that cannot take what the one before it gives."""
    return _stack(tape, spec.layers, value, "")


def _stack(tape: Tape, layers: tuple[Layer, ...], value: Value, prefix: str) -> Value:
    for index, layer in enumerate(layers):
        value = _layer(tape, layer, value, f"{prefix}{index}")
    return value


def _layer(tape: Tape, layer: Layer, value: Value, name: str) -> Value:
    match layer:
        case Linear():
            return tape.linear(value, layer.units, f"layers.{name}", name, bias=layer.bias)
        case Conv():
            return _conv(tape, layer, value, name)
        case Pool():
            return _pool(tape, layer, value)
        case Norm():
            # Places of a picture are normalised by a module around the one that holds the weights.
            inner = name if layer.kind == "batch" or len(value.shape) == 1 else f"{name}.norm"
            return normalized(tape, value, NORMS[layer.kind], value.shape[0], f"layers.{name}", inner)
        case Activate():
            return tape.activation(value, layer.kind)
        case Dropout():
            return tape.dropout(value, layer.p)
        case Flatten():
            return value.viewed(value.size)
        case Residual():
            return tape.add(value, _stack(tape, layer.layers, value, f"{name}.layers."))
        case _:
            assert_never(layer)


def _conv(tape: Tape, layer: Conv, value: Value, name: str) -> Value:
    kernel, dimensions = layer.kernel_size, len(value.shape) - 1
    sides = (kernel,) if isinstance(kernel, int) else kernel
    return tape.conv(
        value,
        infer((layer,), value.shape),
        sides * dimensions if len(sides) == 1 else sides,
        value.shape[0] // layer.groups,
        f"layers.{name}",
        name,
        bias=layer.bias,
    )


def _pool(tape: Tape, layer: Pool, value: Value) -> Value:
    shape = infer((layer,), value.shape)
    if value.grad and layer.kind != "global_avg":
        tape.keep(value)
        if layer.kind == "max":
            tape.keep_more(math.prod(shape), INT64)
    return tape.made(shape, value.item, grad=value.grad)
