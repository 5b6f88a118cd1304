"""Shapes through a stack of layers, by arithmetic: what `worker.trainer.model.layers` builds, without building it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from stoker.spec.model.layers import (
    Activate,
    AttentionLayer,
    Conv,
    Dropout,
    EmbeddingLayer,
    Flatten,
    Layer,
    Linear,
    Norm,
    Pool,
    Rearrange,
    RecurrentLayer,
    Reshape,
    Residual,
)

Shape = tuple[int, ...]
"""Of one sample: (features,), (channels, length), (steps, features) or (channels, height, width)."""


@dataclass(frozen=True)
class Form:
    """What one sample looks like between two layers."""

    shape: Shape
    steps: bool | None = None
    """Of two dimensions: whether they are (steps, features) or (channels, length); None while no layer has said."""
    tokens: bool = False
    """Whether it is ids of tokens, (steps,)."""

    @property
    def features(self) -> int:
        """Channels, or features of each step."""
        return self.shape[-1] if self.steps else self.shape[0]


MISFITS = {
    "dimensions": (
        "{kind} needs (channels, length) or (channels, height, width), but gets {given}",
        "move it before flatten, or remove it",
    ),
    "groups": ("{groups} groups do not divide {inputs} input and {outputs} output channels", "choose a common divisor"),
    "norm-groups": ("{groups} groups do not divide {channels} channels", "choose a divisor, or leave `groups` out"),
    "numbers": ("{given} numbers for {dimensions} dimensions", "give one number, or one per dimension"),
    "window": ("a window of {window} does not fit into {extent}", "pad it, make it smaller, or pool less before"),
    "padding": ("a padding of {padding} is more than half of a window of {window}", "lower it"),
    "same-stride": ("padding `same` keeps the size, and a stride of {stride} does not", "give the padding in numbers"),
    "residual": (
        "a residual stack must keep its shape, but turns {given} into {end}",
        "pad convolutions, end with as many channels or units, or bring the input to the same shape with `shortcut`",
    ),
    "order": (
        "{kind} needs {needed}, but gets {given} as {order}",
        "put {{type: rearrange, to: {to}}} before it",
    ),
    "sequence": ("{kind} reads (steps, features), but gets {given}", "put it where there are steps, or use rearrange"),
    "heads": ("{heads} heads do not divide {features} features", "change num_heads, or set key_dim"),
    "size": ("{wanted} is {count} numbers, but gets {given}, which is {size}", "give a shape of as many numbers"),
    "tokens": ("{kind} reads numbers, but gets tokens of a text", "begin with an embedding"),
    "embedding": ("an embedding reads tokens of a text, but gets {given}", "use it first, with data of type text; or remove it"),
}
"""What may be wrong: a sentence and a hint, with holes."""


@dataclass(frozen=True)
class Misfit(Exception):  # it is a finding before it is an error
    """A layer that cannot take what the one before it gives."""

    kind: str
    """Of MISFITS."""
    pointer: str
    """From the stack: `/3/layers/0`."""
    holes: dict[str, Any]

    @property
    def sentence(self) -> str:
        return "; ".join(MISFITS[self.kind]).format(**self.holes)


def infer(layers: Sequence[Layer], start: Form, at: str = "") -> Form:
    """What comes out of all layers. Raises Misfit at the first that does not fit."""
    for index, layer in enumerate(layers):
        start = after(layer, start, f"{at}/{index}")
    return start


def after(layer: Layer, given: Form, at: str = "") -> Form:
    """What comes out of one layer. `at`: where it stands. Raises Misfit."""
    if given.tokens and not isinstance(layer, EmbeddingLayer):
        raise Misfit("tokens", at, {"kind": layer.type})
    match layer:
        case Linear(units=units):
            return Form((*given.shape[:-1], units), given.steps)
        case Conv():
            return Form(_conv(layer, _channels(given, at, "conv"), at), _order(given, steps=False))
        case Pool(kind="global_avg" | "global_max"):
            return _global(given, at)
        case Pool():
            return Form(_pool(layer, _channels(given, at, "pool"), at), _order(given, steps=False))
        case Norm():
            return _norm(layer, given, at)
        case AttentionLayer():
            return _attention(layer, given, at)
        case RecurrentLayer():
            shape = _sequence(given, at, "rnn")
            return Form((layer.width,)) if layer.says == "end" else Form((shape[0], layer.width), True)
        case EmbeddingLayer(size=size):
            if not given.tokens:
                raise Misfit("embedding", at, {"given": written(given.shape)})
            return Form((*given.shape, size), True)
        case Flatten():
            return Form((math.prod(given.shape),))
        case Reshape(shape=shape):
            return _reshape(shape, given, at)
        case Rearrange():
            return _rearrange(layer, given, at)
        case Residual():
            return _residual(layer, given, at)
        case Activate() | Dropout():
            return given
        case _:
            assert_never(layer)


def _order(given: Form, *, steps: bool) -> bool | None:
    return steps if len(given.shape) == 2 else None


def _channels(given: Form, at: str, kind: str) -> Shape:
    """A shape with channels in front."""
    if len(given.shape) not in (2, 3):
        raise Misfit("dimensions", at, {"kind": kind, "given": written(given.shape)})
    if given.steps:
        raise _disorder(given, at, kind, steps=False)
    return given.shape


def _sequence(given: Form, at: str, kind: str) -> Shape:
    """(steps, features)."""
    if len(given.shape) != 2:
        raise Misfit("sequence", at, {"kind": kind, "given": written(given.shape)})
    if given.steps is False:
        raise _disorder(given, at, kind, steps=True)
    return given.shape


def _disorder(given: Form, at: str, kind: str, *, steps: bool) -> Misfit:
    orders = ("(steps, features)", "(channels, length)")
    needed, order = orders if steps else orders[::-1]
    to = "steps" if steps else "channels"
    return Misfit("order", at, {"kind": kind, "needed": needed, "given": written(given.shape), "order": order, "to": to})


def _conv(layer: Conv, shape: Shape, at: str) -> Shape:
    extent = shape[1:]
    if shape[0] % layer.groups or layer.channels % layer.groups:
        raise Misfit("groups", f"{at}/groups", {"groups": layer.groups, "inputs": shape[0], "outputs": layer.channels})
    kernel, stride = numbers(layer.kernel_size, extent, f"{at}/kernel_size"), numbers(layer.stride, extent, f"{at}/stride")
    dilation = numbers(layer.dilation, extent, f"{at}/dilation")
    if layer.padding == "same":
        if max(stride) > 1:
            raise Misfit("same-stride", f"{at}/padding", {"stride": written(stride)})
        return (layer.channels, *extent)
    padding = numbers(layer.padding, extent, f"{at}/padding")
    spans = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    padded = tuple(size + 2 * p for size, p in zip(extent, padding, strict=True))
    return (layer.channels, *_windows(padded, spans, stride, at))


def _pool(layer: Pool, shape: Shape, at: str) -> Shape:
    extent = shape[1:]
    if not layer.slides:
        return (shape[0], *numbers(layer.output_size or 1, extent, f"{at}/output_size"))
    kernel = numbers(layer.kernel_size or 2, extent, f"{at}/kernel_size")
    stride = numbers(layer.stride, extent, f"{at}/stride") if layer.stride is not None else kernel
    padding = numbers(layer.padding or 0, extent, f"{at}/padding")
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise Misfit("padding", f"{at}/padding", {"padding": written(padding), "window": written(kernel)})
    padded = tuple(size + 2 * p for size, p in zip(extent, padding, strict=True))
    return (shape[0], *_windows(padded, kernel, stride, at))


def _global(given: Form, at: str) -> Form:
    if len(given.shape) not in (2, 3):
        raise Misfit("dimensions", at, {"kind": "pool", "given": written(given.shape)})
    return Form((given.features,))


def _norm(layer: Norm, given: Form, at: str) -> Form:
    if layer.kind == "group" and given.features % layer.groups_of(given.features):
        raise Misfit("norm-groups", f"{at}/groups", {"groups": layer.groups, "channels": given.features})
    # Of two dimensions that nobody has named, the first is taken for channels.
    return Form(given.shape, _order(given, steps=bool(given.steps)))


def _attention(layer: AttentionLayer, given: Form, at: str) -> Form:
    if len(given.shape) == 3:
        features, form = given.shape[0], given
    else:
        features, form = _sequence(given, at, "attention")[1], Form(given.shape, True)
    if layer.key_dim is None and features % layer.num_heads:
        raise Misfit("heads", f"{at}/num_heads", {"heads": layer.num_heads, "features": features})
    return form


def _reshape(shape: Shape, given: Form, at: str) -> Form:
    count, size = math.prod(shape), math.prod(given.shape)
    if count != size:
        holes = {"wanted": written(shape), "count": count, "given": written(given.shape), "size": size}
        raise Misfit("size", f"{at}/shape", holes)
    return Form(shape)


def _rearrange(layer: Rearrange, given: Form, at: str) -> Form:
    match layer.to:
        case "steps" if len(given.shape) == 3:
            return Form((math.prod(given.shape[1:]), given.shape[0]), True)
        case "steps":
            return Form(_channels(given, at, "rearrange")[::-1], True)
        case "channels":
            return Form(_sequence(given, at, "rearrange")[::-1], False)
        case _:
            assert_never(layer.to)


def _residual(layer: Residual, given: Form, at: str) -> Form:
    end, around = infer(layer.layers, given, f"{at}/layers"), infer(layer.shortcut, given, f"{at}/shortcut")
    if end.shape != around.shape:
        raise Misfit("residual", at, {"given": written(around.shape), "end": written(end.shape)})
    return end


def _windows(extent: Shape, window: Shape, stride: Shape, at: str) -> Shape:
    out = tuple((size - w) // s + 1 for size, w, s in zip(extent, window, stride, strict=True))
    if min(out) < 1:
        raise Misfit("window", at, {"window": written(window), "extent": written(extent)})
    return out


def numbers(value: int | tuple[int, ...], extent: Shape, at: str = "") -> Shape:
    """One per dimension. Raises Misfit."""
    values = (value,) if isinstance(value, int) else value
    if len(values) not in (1, len(extent)):
        raise Misfit("numbers", at, {"given": len(values), "dimensions": len(extent)})
    return values * len(extent) if len(values) == 1 else values


def written(shape: Shape) -> str:
    """`(3, 32, 32)` for messages."""
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
