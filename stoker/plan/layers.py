"""A stack of layers on paper, as `worker.trainer.model.layers` builds it."""

from typing import assert_never

from stoker.plan.tape import INT64, Tape, Value
from stoker.spec.model.layers import Activate, Conv, Dropout, Flatten, Layer, Layers, Linear, Norm, Pool, Residual


def play_layers(tape: Tape, spec: Layers, value: Value) -> Value:
    return _stack(tape, spec.layers, value, "layers")


def _stack(tape: Tape, layers: tuple[Layer, ...], value: Value, prefix: str) -> Value:
    for index, layer in enumerate(layers):
        value = _layer(tape, layer, value, f"{prefix}.{index}")
    return value


def _layer(tape: Tape, layer: Layer, value: Value, name: str) -> Value:
    match layer:
        case Linear():
            return tape.linear(value, layer.units, name, name, bias=layer.bias)
        case Conv():
            return _conv(tape, layer, value, name)
        case Pool():
            return _pool(tape, layer, value)
        case Norm():
            return _norm(tape, layer, value, name)
        case Activate():
            return tape.activation(value, layer.kind)
        case Dropout():
            return tape.dropout(value, layer.p)
        case Flatten():
            value.shape = (value.size,)
            return value
        case Residual():
            return tape.add(value, _stack(tape, layer.layers, value, f"{name}.layers"))
        case _:
            assert_never(layer)


def _sides(side: int | tuple[int, ...], rank: int) -> tuple[int, ...]:
    return (side,) * rank if isinstance(side, int) else side * rank if len(side) == 1 else side


def _conv(tape: Tape, layer: Conv, value: Value, name: str) -> Value:
    inputs, *size = value.shape
    rank = len(size)
    kernel, stride = _sides(layer.kernel_size, rank), _sides(layer.stride, rank)
    padding, dilation = _sides(layer.padding, rank), _sides(layer.dilation, rank)
    out = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)]
    return tape.conv(value, layer.channels, tuple(out), kernel, inputs // layer.groups, name, bias=layer.bias)


def _pool(tape: Tape, layer: Pool, value: Value) -> Value:
    channels, *size = value.shape
    if layer.kind == "global_avg":
        return tape.value((channels,), value.item)
    kernel = _sides(layer.kernel_size or 2, len(size))
    stride = _sides(layer.stride or layer.kernel_size or 2, len(size))
    out = tape.value((channels, *((n - k) // s + 1 for n, k, s in zip(size, kernel, stride, strict=True))), value.item)
    tape.keep(value)
    if layer.kind == "max":
        tape.keep_extra(out.size, INT64)
    return out


def _norm(tape: Tape, layer: Norm, value: Value, name: str) -> Value:
    width = value.shape[0]
    tape.learn(name, f"{name}.weight", (width,))
    if layer.kind != "rms":
        tape.learn(name, f"{name}.bias", (width,))
    if layer.kind == "batch":
        tape.batch_statistics(name, name, width)
    return tape.norm(value, layer.kind, width)
