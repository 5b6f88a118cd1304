"""A forward pass on paper: what one micro-batch computes, learns and keeps for the backward pass, in exact integers.

Families play their layers on a `Tape` as the trainer plays them on tensors. The rules of what autograd keeps are those of
PyTorch 2.13 (derivatives.yaml), checked against `torch.autograd.graph.saved_tensors_hooks` by the tests.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, assert_never

from stoker.spec.model.parts import Activation

Shape = tuple[int, ...]
FP32, BF16, INT64 = 4, 2, 8
"""Bytes per element."""


class Value:
    """A tensor of one micro-batch: shape of one sample, bytes per element, and whether the backward pass keeps it."""

    __slots__ = ("grad", "item", "kept", "shape")

    def __init__(self, shape: Shape, item: int = FP32, *, grad: bool = True, kept: bool = False) -> None:
        self.shape, self.item, self.grad, self.kept = shape, item, grad, kept

    @property
    def size(self) -> int:
        """Elements per sample."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Weight:
    """A learned tensor, or `copies` of them that differ only in the index of their block."""

    name: str
    """Name in the state dict, with `{}` where the index of the block stands."""
    shape: Shape
    part: str
    copies: int = 1

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.copies


@dataclass
class Tape:
    """Counts for one micro-batch of `batch` samples."""

    batch: int
    gpu: bool = False
    mixed: bool = False
    """Matrix products in bfloat16 (autocast)."""
    weights: list[Weight] = field(default_factory=list)
    buffers: list[Weight] = field(default_factory=list)
    """Tensors of the state that are not learned."""
    forward: int = 0
    """FLOPs of the matrix products and convolutions."""
    backward: int = 0
    saved: int = 0
    """Bytes kept from the forward to the backward pass."""
    largest: int = 0
    """Bytes of the largest tensor made."""
    casts: int = 0
    """Bytes of the bfloat16 copies of weights."""
    copies: int = 1
    """What is played now stands for this many equal blocks."""

    def value(self, shape: Shape, item: int = FP32, *, kept: bool = False, grad: bool = True) -> Value:
        made = Value(shape, item, kept=kept, grad=grad)
        nbytes = self.batch * made.size * item
        self.largest = max(self.largest, nbytes)
        if kept:
            self.saved += nbytes * self.copies
        return made

    def keep(self, value: Value) -> None:
        """The backward pass needs this value."""
        if not value.kept:
            value.kept = True
            self.saved += self.batch * value.size * value.item * self.copies

    def keep_extra(self, elements: int, item: int = FP32, *, per_sample: bool = True) -> None:
        """The backward pass needs something that no other operation sees: statistics, masks, indices."""
        self.saved += elements * item * self.copies * (self.batch if per_sample else 1)

    def learn(self, part: str, name: str, shape: Shape) -> None:
        self.weights.append(Weight(name, shape, part, self.copies))

    def buffer(self, part: str, name: str, shape: Shape) -> None:
        self.buffers.append(Weight(name, shape, part, self.copies))

    def product(self, flops: int, *, into: Value) -> None:
        """A product with weights: as much again for their gradient, and for the input's where it needs one."""
        self.forward += flops * self.copies
        self.backward += flops * self.copies * (2 if into.grad else 1)

    def linear(self, value: Value, units: int, part: str, name: str, *, bias: bool, tied: bool = False) -> Value:
        width, rows = value.shape[-1], self.batch * (value.size // value.shape[-1])
        if not tied:
            self.learn(part, f"{name}.weight", (units, width))
            if bias:
                self.learn(part, f"{name}.bias", (units,))
        self.lower(value, width * units)
        self.product(2 * rows * width * units, into=value)
        return self.value((*value.shape[:-1], units), BF16 if self.mixed else FP32)

    def lower(self, value: Value, weights: int) -> None:
        """Keep an input of a product, under autocast as its bfloat16 copy beside that of the weights."""
        if not self.mixed or value.item == BF16:
            self.keep(value)
        else:
            self.value(value.shape, BF16, kept=True)
        if self.mixed:
            self.casts += weights * BF16 * self.copies

    def activation(self, value: Value, kind: Activation) -> Value:
        match kind:
            case "relu" | "tanh" | "sigmoid":
                return self.value(value.shape, value.item, kept=True)
            case "relu_squared":
                self.value(value.shape, value.item, kept=True)
            case "gelu" | "gelu_tanh" | "silu" | "leaky_relu" | "elu":
                self.keep(value)
            case _:
                assert_never(kind)
        return self.value(value.shape, value.item)

    def dropout(self, value: Value, p: float) -> Value:
        """CPU kernels keep the mask in the format of the values, GPU kernels as bytes."""
        if p == 0:
            return value
        self.keep_extra(value.size, 1 if self.gpu else value.item)
        return self.value(value.shape, value.item)

    def norm(self, value: Value, kind: Literal["batch", "layer", "rms"], width: int) -> Value:
        """Statistics are kept per feature (batch) or per row; the CPU's rms also keeps the normalised values."""
        self.keep(value)
        match kind:
            case "batch":
                self.keep_extra(2 * width, per_sample=False)
            case "layer":
                self.keep_extra(2 * value.size // width)
            case "rms":
                self.keep_extra(value.size // width)
                if not self.gpu:
                    self.value(value.shape, kept=True)
            case _:
                assert_never(kind)
        return self.value(value.shape, value.item)

    def add(self, left: Value, right: Value) -> Value:
        return self.value(left.shape, max(left.item, right.item))

    def batch_statistics(self, part: str, name: str, width: int) -> None:
        """Running mean, running variance and the count of batches, an int64, that batch normalisation carries."""
        self.buffer(part, f"{name}.running_mean", (width,))
        self.buffer(part, f"{name}.running_var", (width,))
        self.buffer(part, f"{name}.num_batches_tracked", ())

    def conv(self, value: Value, channels: int, size: Shape, kernel: Shape, group: int, name: str, *, bias: bool) -> Value:
        """`group` is the number of input channels that one output channel sees."""
        self.learn(name, f"{name}.weight", (channels, group, *kernel))
        if bias:
            self.learn(name, f"{name}.bias", (channels,))
        taps = group * math.prod(kernel)
        self.lower(value, channels * taps)
        self.product(2 * self.batch * channels * math.prod(size) * taps, into=value)
        return self.value((channels, *size), BF16 if self.mixed else FP32)

    def attention(self, query: Value, key: Value, content: Value, heads: int, length: int, p: float) -> Value:
        """Causal attention; the mask is not discounted from the FLOPs. With dropout the CPU keeps the scores."""
        self.forward += 4 * self.batch * length * query.size * self.copies
        self.backward += 8 * self.batch * length * query.size * self.copies
        for value in (query, key, content):
            self.keep(value)
        if p > 0 and not self.gpu:
            self.keep_extra(3 * heads * length * length, query.item)
            return self.value(query.shape, query.item)
        self.keep_extra(heads * length)
        return self.value(query.shape, query.item, kept=True)

    def loss(self, logits: Value, kind: Literal["cross_entropy", "mse"]) -> None:
        """The log-probabilities and the targets, or outputs and targets; worked on in float32."""
        match kind:
            case "cross_entropy":
                self.value(logits.shape, kept=True)
                self.keep_extra(logits.size // logits.shape[-1], INT64)
            case "mse":
                self.keep(logits)
                self.keep_extra(logits.size)
            case _:
                assert_never(kind)
