"""A stack of layers on paper, as `worker.trainer.model.layers` builds it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

from stoker.plan.recurrent import play_cells, walk_of
from stoker.plan.tape import BF16, FP32, INT64, Tape, Value
from stoker.spec.model.cnn import CNN
from stoker.spec.model.layers import (
    Activate,
    AttentionLayer,
    Conv,
    Dropout,
    EmbeddingLayer,
    Flatten,
    Layer,
    Layers,
    Linear,
    Norm,
    Pool,
    Rearrange,
    RecurrentLayer,
    Reshape,
    Residual,
)
from stoker.spec.model.shapes import Form, after, numbers


def play_layers(tape: Tape, spec: Layers, value: Value, vocabulary: int | None) -> Value:
    """Outputs of one micro-batch. Raises Misfit for a layer that cannot take what the one before it gives."""
    start = Form(value.shape, tokens=vocabulary is not None)
    return _Player(tape, vocabulary, lambda name: f"layers.{name}").stack(spec.layers, value, start, "")


def play_cnn(tape: Tape, spec: CNN, value: Value, outputs: int) -> Value:
    """Outputs of one micro-batch. Raises Misfit where samples are no pictures."""
    layers = spec.stack(outputs)
    blocks = [index for index, layer in enumerate(layers) if isinstance(layer, Residual)]
    begins = blocks[0] if blocks else len(layers)

    def part(name: str) -> str:
        at = int(name.partition(".")[0])
        return "stem" if at < begins else "blocks" if at < len(layers) - 1 else "head"

    return _Player(tape, None, part).stack(layers, value, Form(value.shape), "")


@dataclass(frozen=True)
class _Player:
    tape: Tape
    vocabulary: int | None
    """Tokens that there are, for text."""
    part: Callable[[str], str]
    """The part of the model that a layer belongs to, by its name."""

    def stack(self, layers: Sequence[Layer], value: Value, given: Form, prefix: str) -> Value:
        for index, layer in enumerate(layers):
            end = after(layer, given, f"/{index}")
            value = self._layer(layer, value, given, end, f"{prefix}{index}")
            given = end
        return value

    def _layer(self, layer: Layer, value: Value, given: Form, end: Form, name: str) -> Value:
        tape = self.tape
        match layer:
            case Linear():
                return tape.linear(value, layer.units, self.part(name), name, bias=layer.bias)
            case Conv():
                return self._conv(layer, value, end, name)
            case Pool():
                return self._pool(layer, value, end)
            case Norm():
                return self._norm(layer, value, given, name)
            case AttentionLayer():
                return self._attention(layer, value, name)
            case RecurrentLayer():
                return self._recurrent(layer, value, name)
            case EmbeddingLayer():
                return self._embedding(layer, value, name)
            case Activate():
                return tape.activation(value, layer.kind)
            case Dropout():
                return tape.dropout(value, layer.p)
            case Flatten() | Reshape():
                return value.viewed(*end.shape)
            case Rearrange():
                return tape.made(end.shape, value.item, grad=value.grad)
            case Residual():
                around = self.stack(layer.shortcut, value, given, f"{name}.shortcut.")
                return tape.add(around, self.stack(layer.layers, value, given, f"{name}.layers."))
            case _:
                assert_never(layer)

    def _conv(self, layer: Conv, value: Value, end: Form, name: str) -> Value:
        channels, *extent = value.shape
        kernel = numbers(layer.kernel_size, tuple(extent))
        if layer.padding == "same":
            value = self._padded(layer, value, kernel)
        return self.tape.conv(value, end.shape, kernel, channels // layer.groups, self.part(name), name, bias=layer.bias)

    def _padded(self, layer: Conv, value: Value, kernel: tuple[int, ...]) -> Value:
        """Windows of even size need one zero more on one side, which makes a copy."""
        channels, *extent = value.shape
        around = [d * (k - 1) for k, d in zip(kernel, numbers(layer.dilation, tuple(extent)), strict=True)]
        if all(zeros % 2 == 0 for zeros in around):
            return value
        return self.tape.made(
            (channels, *(n + zeros % 2 for n, zeros in zip(extent, around, strict=True))),
            BF16 if self.tape.mixed else self.tape.word,
            grad=value.grad,
        )

    def _pool(self, layer: Pool, value: Value, end: Form) -> Value:
        tape = self.tape
        out = tape.made(end.shape, value.item, grad=value.grad)
        match layer.kind:
            case "global_avg":
                return out
            case "adaptive_avg" if math.prod(end.shape) == end.shape[0]:
                return out  # a mean over everything
            case "avg" | "adaptive_avg":
                kept: tuple[Value, ...] = (value,)
            case "max" | "adaptive_max":
                kept = (value,)
                if value.grad:
                    tape.keep_more(out.size, INT64)
            case "global_max":
                kept = (value, out)
            case _:
                assert_never(layer.kind)
        for each in kept if value.grad else ():
            tape.keep(each)
        return out

    def _norm(self, layer: Norm, value: Value, given: Form, name: str) -> Value:
        tape, width, part = self.tape, given.features, self.part(name)
        last = layer.kind in ("layer", "rms")
        turned = len(given.shape) > 1 and last != bool(given.steps)  # a module around the one that holds the weights
        name = f"{name}.norm" if turned else name
        if layer.kind == "batch" and layer.track_running_stats is not False:
            tape.statistics(part, name, width)
        tensors = ("weight",) if layer.kind == "rms" else ("weight", "bias")
        for tensor in tensors if layer.affine else ():
            tape.learn(part, f"{name}.{tensor}", (width,), FP32 if layer.kind == "batch" else None)
        held = layer.affine or (layer.kind == "batch" and layer.track_running_stats is not False)
        return tape.norm(value, layer.kind, layer.groups_of(width) if layer.kind == "group" else width, learned=held)

    def _attention(self, layer: AttentionLayer, value: Value, name: str) -> Value:
        tape, part, shape = self.tape, self.part(name), value.shape
        if len(shape) == 3:
            value = tape.made((math.prod(shape[1:]), shape[0]), value.item, grad=value.grad)
        length, features = value.shape
        width = layer.key_dim or features // layer.num_heads
        value = tape.cast(value)
        query, key, content = (
            tape.linear(value, layer.num_heads * width, part, f"{name}.{each}", bias=layer.bias).viewed(
                layer.num_heads, length, width
            )
            for each in ("q", "k", "v")
        )
        mixed = tape.attention(query, key, content, layer.dropout, plain=True)
        out = tape.linear(mixed, features, part, f"{name}.out", bias=layer.bias)
        return out if len(shape) == 2 else tape.made(shape, out.item)

    def _recurrent(self, layer: RecurrentLayer, value: Value, name: str) -> Value:
        tape = self.tape
        length = value.shape[0]
        value = value if value.item == tape.word else tape.made(value.shape, grad=value.grad)
        said = play_cells(tape, layer.model, value, walk_of(length, None, text=False), self.part(name), f"{name}.")
        if layer.says == "steps":
            return tape.made(said.shape, said.item)  # with the batch in front again
        return tape.made((layer.width,), said.item) if layer.bidirectional else said.viewed(layer.width)

    def _embedding(self, layer: EmbeddingLayer, value: Value, name: str) -> Value:
        tape, part, length = self.tape, self.part(name), value.shape[0]
        assert self.vocabulary is not None, "only text has tokens"
        tape.learn(part, f"{name}.tokens.weight", (self.vocabulary, layer.size))
        tape.keep_more(length, INT64)
        made = tape.made((length, layer.size))
        if not layer.positions:
            return made
        tape.learn(part, f"{name}.positions.weight", (length, layer.size))
        return tape.made(made.shape)
