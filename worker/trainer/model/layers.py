"""Layer lists into modules. Shapes are followed by arithmetic, so that a misfit names its layer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from torch import nn

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
from stoker.spec.model.parts import BatchNorm, Init
from stoker.spec.model.shapes import Form, Misfit, Shape, after, numbers, written
from worker.trainer.errors import SpecProblem
from worker.trainer.model.layer_modules import (
    Branch,
    GlobalPool,
    Reader,
    Rearranged,
    Reshaped,
    SelfAttention,
    Tokens,
    Turned,
)
from worker.trainer.model.parts import build_activation, build_batch_norm, initialize
from worker.trainer.model.recurrent import open_forget_gates


def build_layers(spec: Layers, shape: Shape, outputs: int, *, text: bool, vocabulary: int | None = None) -> nn.Module:
    """(batch, *shape) → (batch, outputs); of text, (batch, tokens) ids → (batch, tokens, outputs), unless `vocabulary` says how
    many tokens there are: then → (batch, outputs).

    Raises SpecProblem naming the layer that does not fit.
    """
    continued = text and vocabulary is None
    wanted = (*shape, outputs) if continued else (outputs,)
    return build_stack(spec.layers, Form(shape, tokens=text), wanted, outputs if continued else vocabulary, spec.init)


def build_stack(layers: Sequence[Layer], start: Form, wanted: Shape, vocabulary: int | None, init: Init) -> nn.Module:
    """Layers from one form to the shape that is wanted. Raises SpecProblem."""
    try:
        model, end = _Builder(vocabulary).stack(layers, start, "")
    except Misfit as misfit:
        where = re.sub(r"/([0-9]+)", r"[\1]", misfit.pointer).replace("/", ".")
        raise SpecProblem(f"model.layers{where}: {misfit.sentence}") from misfit
    if end.shape != wanted:
        raise SpecProblem(
            f"model.layers: the last layer gives {written(end.shape)}, the task needs {written(wanted)}; "
            f"end with linear units: {wanted[-1]}"
        )
    ends = [_last_projection(m) for m in model.modules() if isinstance(m, Branch)]
    initialize(model, init, [m for m in ends if m is not None])
    for module in model.modules():
        if isinstance(module, Reader):
            open_forget_gates(module.layers, module.spec)
    return model


@dataclass(frozen=True)
class _Builder:
    vocabulary: int | None
    """Tokens that there are, for text."""

    def stack(self, layers: Sequence[Layer], given: Form, at: str) -> tuple[nn.Sequential, Form]:
        modules = []
        for index, layer in enumerate(layers):
            end = after(layer, given, f"{at}/{index}")
            modules.append(self._module(layer, given, f"{at}/{index}"))
            given = end
        return nn.Sequential(*modules), given

    def _module(self, layer: Layer, given: Form, at: str) -> nn.Module:
        match layer:
            case Linear():
                return nn.Linear(given.shape[-1], layer.units, layer.bias)
            case Conv():
                return _conv(layer, given.shape)
            case Pool():
                return _pool(layer, given)
            case Norm():
                return _norm(layer, given)
            case AttentionLayer():
                return SelfAttention(layer, given.shape[0] if len(given.shape) == 3 else given.shape[1])
            case RecurrentLayer():
                return Reader(layer, given.shape[1])
            case EmbeddingLayer():
                assert self.vocabulary is not None, "only text has tokens"
                return Tokens(layer, given.shape[0], self.vocabulary)
            case Activate():
                return build_activation(layer.kind)
            case Dropout():
                return nn.Dropout(layer.p)
            case Flatten():
                return nn.Flatten()
            case Reshape():
                return Reshaped(layer.shape)
            case Rearrange():
                return Rearranged()
            case Residual():
                around = self.stack(layer.shortcut, given, f"{at}/shortcut")[0] if layer.shortcut else None
                return Branch(self.stack(layer.layers, given, f"{at}/layers")[0], around)
            case _:
                assert_never(layer)


def _conv(layer: Conv, shape: Shape) -> nn.Module:
    extent = shape[1:]
    kernel, stride, dilation = (numbers(each, extent) for each in (layer.kernel_size, layer.stride, layer.dilation))
    padding = layer.padding if layer.padding == "same" else numbers(layer.padding, extent)
    kind = nn.Conv1d if len(extent) == 1 else nn.Conv2d
    return kind(shape[0], layer.channels, kernel, stride, padding, dilation, layer.groups, layer.bias)  # type: ignore[arg-type]  # tuples of the right length


def _pool(layer: Pool, given: Form) -> nn.Module:
    extent, flat = given.shape[1:], len(given.shape) == 2
    match layer.kind:
        case "global_avg" | "global_max":
            return GlobalPool(steps=bool(given.steps), largest=layer.kind == "global_max")
        case "adaptive_avg" | "adaptive_max":
            size = numbers(layer.output_size or 1, extent)
            if layer.kind == "adaptive_max":
                return nn.AdaptiveMaxPool1d(size[0]) if flat else nn.AdaptiveMaxPool2d((size[0], size[1]))
            return nn.AdaptiveAvgPool1d(size[0]) if flat else nn.AdaptiveAvgPool2d((size[0], size[1]))
        case "max" | "avg":
            kernel, padding = numbers(layer.kernel_size or 2, extent), numbers(layer.padding or 0, extent)
            stride = numbers(layer.stride, extent) if layer.stride is not None else kernel
            if layer.kind == "max":
                return (nn.MaxPool1d if flat else nn.MaxPool2d)(kernel, stride, padding)
            return (nn.AvgPool1d if flat else nn.AvgPool2d)(kernel, stride, padding)  # type: ignore[arg-type]  # tuples of the right length
        case _:
            assert_never(layer.kind)


def _norm(layer: Norm, given: Form) -> nn.Module:
    """batch and group take channels in front, layer and rms take them last."""
    width, single, steps = given.features, len(given.shape) == 1, bool(given.steps)
    match layer.kind:
        case "batch":
            momentum = 0.1 if layer.momentum is None else layer.momentum
            tracked = layer.track_running_stats is not False
            spec = BatchNorm(
                eps=layer.eps, momentum=momentum, affine=layer.affine, track_running_stats=tracked, sync=bool(layer.sync)
            )
            norm = build_batch_norm(spec, width)
        case "group":
            norm = nn.GroupNorm(layer.groups_of(width), width, layer.eps, layer.affine)
        case "layer":
            norm = nn.LayerNorm(width, layer.eps, layer.affine)
        case "rms":
            norm = nn.RMSNorm(width, layer.eps, layer.affine)
        case _:
            assert_never(layer.kind)
    last = layer.kind in ("layer", "rms")
    return norm if single or last == steps else Turned(norm, last=last)


def _last_projection(branch: Branch) -> nn.Module | None:
    for module in reversed(list(branch.layers)):
        if isinstance(module, SelfAttention):
            return module.out
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            return module
    return None
