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


@dataclass
class Storage:
    """Memory behind values: elements per sample, bytes of each, and whether the backward pass keeps it."""

    elements: int
    item: int
    kept: bool = False


class Value:
    """A tensor of one micro-batch by the shape of one sample, perhaps a view of part of its storage."""

    __slots__ = ("grad", "shape", "storage")

    def __init__(self, shape: Shape, storage: Storage, grad: bool) -> None:
        self.shape, self.storage, self.grad = shape, storage, grad

    @property
    def size(self) -> int:
        """Elements per sample."""
        return math.prod(self.shape)

    @property
    def item(self) -> int:
        return self.storage.item

    def viewed(self, *shape: int) -> "Value":
        """The same memory, or part of it, in another shape."""
        return Value(shape, self.storage, self.grad)


@dataclass(frozen=True)
class Weight:
    """A tensor of the state, or `copies` of them that differ only in the index of their block."""

    name: str
    """Name in the state dict, with `{}` where the index of the block stands."""
    shape: Shape
    part: str
    copies: int = 1
    item: int = FP32
    """Bytes per element."""
    places: int = 0
    """Of a linear layer, how often each sample goes through it; 0 for any other weight."""

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.copies


@dataclass
class Tape:
    """Counts for one micro-batch of `batch` samples."""

    batch: int
    gpu: bool = False
    mixed: bool = False
    """Matrix products in 16 bits (autocast)."""
    pure: bool = False
    """Weights and values in 16 bits."""
    weights: list[Weight] = field(default_factory=list)
    buffers: list[Weight] = field(default_factory=list)
    """Tensors of the state that are not learned."""
    forward: int = 0
    """FLOPs of the matrix products and convolutions."""
    backward: int = 0
    saved: int = 0
    """Bytes kept from the forward to the backward pass."""
    high: int = 0
    """Most bytes at once: what is kept up to an operation, with its result and gradient on the way back."""
    casts: int = 0
    """Bytes of the bfloat16 copies of weights."""
    copies: int = 1
    """What is played now stands for this many equal blocks."""
    before_head: tuple[int, int, int] = (0, 0, 0)
    """Bytes saved, of casts, and most at once, when all but the head was played; see `ahead_of_head`."""
    head_input: Value | None = None
    """What the head reads."""
    windows: int = 1
    """Backward passes of one micro-batch: windows of time, where a sequence is learned in pieces."""

    resting: bool = False
    """What is played now has weights that get no gradients."""
    in_turn: int | None = None
    """Bytes of the weights that learn at once, where networks do so in turn."""
    frozen: frozenset[str] = frozenset()
    """Names of weights that never learn."""

    @property
    def learned(self) -> list[Weight]:
        """Weights that have gradients and an optimizer's state."""
        return [weight for weight in self.weights if weight.name not in self.frozen] if self.frozen else self.weights

    @property
    def learned_bytes(self) -> int:
        return sum(weight.size * weight.item for weight in self.learned)

    @property
    def gradient_bytes(self) -> int:
        """Most gradients that are there at once, on a rank by itself."""
        return self.learned_bytes if self.in_turn is None else self.in_turn

    @property
    def parameters(self) -> int:
        return sum(weight.size for weight in self.weights)

    @property
    def weight_bytes(self) -> int:
        return sum(weight.size * weight.item for weight in self.weights)

    @property
    def word(self) -> int:
        """Bytes per element of weights and of what no product made."""
        return BF16 if self.pure else FP32

    @property
    def largest_weight(self) -> int:
        """Bytes of the largest learned tensor."""
        return max((math.prod(weight.shape) * weight.item for weight in self.weights), default=0)

    @property
    def activation_bytes(self) -> int:
        """What the forward pass of a micro-batch leaves for its backward pass."""
        return self.saved + self.casts

    def start(self, shape: Shape) -> Value:
        """A batch of samples as the loader hands it over, in float32, and as the model takes it."""
        samples = Value(shape, Storage(math.prod(shape), FP32), grad=False)
        return self.made(shape, grad=False) if self.pure else samples

    def made(self, shape: Shape, item: int | None = None, *, kept: bool = False, grad: bool = True) -> Value:
        """A new tensor, in the format of the weights unless `item` is another one."""
        item = item or self.word
        value = Value(shape, Storage(math.prod(shape), item), grad)
        if kept:
            self.keep(value)
        self.high = max(self.high, self.activation_bytes + 2 * self.batch * value.size * item)
        return value

    def keep(self, value: Value) -> None:
        """The backward pass needs this value, and with it the whole storage."""
        storage = value.storage
        if not storage.kept:
            storage.kept = True
            self.saved += self.batch * storage.elements * storage.item * self.copies

    def keep_more(self, elements: int, item: int = FP32, *, per_sample: bool = True) -> None:
        """The backward pass needs something that no other operation sees: statistics, masks, indices."""
        self.saved += elements * item * self.copies * (self.batch if per_sample else 1)

    def forget(self, before: int, high: int, inputs: Value, again: tuple[int, ...], blocks: int) -> None:
        """Of the equal blocks just played, those of `again` keep their inputs alone; on the way back one at a time is whole.

        `before` and `high`: what was kept, and most at once, before the first of them.
        """
        if not again:
            return
        each, work = (self.saved - before) // blocks, max(0, self.high - self.activation_bytes)
        self.saved = before + each * (blocks - len(again)) + self.batch * inputs.size * inputs.item * len(again)
        freed = blocks - 1 - again[-1]  # blocks behind the last of them, which are gone by then
        self.high = max(high, self.activation_bytes + max(0, 1 - freed) * each + work)

    def ahead_of_head(self, stream: Value) -> None:
        """What is played from here on may be undone by `head_in_parts`. `stream`: what the head reads."""
        self.before_head = (self.saved, self.casts, self.high)
        self.head_input = stream

    def head_in_parts(self, share: float, beside: int) -> None:
        """Head and loss were played for all tokens, and are made for a share of them at a time, and again on the way back:
        what they kept is never there at once. `beside`: bytes that each part needs whatever its size.
        """
        saved, casts, high = self.before_head
        work = max(self.high, self.activation_bytes) - saved - casts
        self.saved, self.casts = saved, casts
        if self.head_input is not None:
            self.head_input.storage.kept = False
            self.keep(self.head_input)
        self.high = max(high, self.activation_bytes + int(work * min(1.0, share)) + beside)

    def learn(self, part: str, name: str, shape: Shape, item: int | None = None, *, places: int = 0) -> None:
        self.weights.append(Weight(name, shape, part, self.copies, item or self.word, places))

    def remember(self, part: str, name: str, shape: Shape) -> None:
        """A buffer."""
        self.buffers.append(Weight(name, shape, part, self.copies))

    def cast(self, value: Value) -> Value:
        """What several products read: in mixed precision they share one narrow copy."""
        return self.made(value.shape, BF16, grad=value.grad) if self.mixed and value.item != BF16 else value

    def linear(self, value: Value, units: int, part: str, name: str, *, bias: bool, tied: bool = False) -> Value:
        """Over the last dimension; `tied` when its weight is one that is learned elsewhere."""
        width, places = value.shape[-1], value.size // value.shape[-1]
        if not tied:
            self.learn(part, f"{name}.weight", (units, width), places=places)
        if bias:
            self.learn(part, f"{name}.bias", (units,))
        self._product(value, 2 * places * width * units, width * units)
        return self.made((*value.shape[:-1], units), self.product_item)

    def conv(self, value: Value, shape: Shape, kernel: Shape, group: int, part: str, name: str, *, bias: bool) -> Value:
        """Into `shape`, each output channel seeing `group` input channels."""
        self.learn(part, f"{name}.weight", (shape[0], group, *kernel))
        if bias:
            self.learn(part, f"{name}.bias", (shape[0],))
        taps = group * math.prod(kernel)
        self._product(value, 2 * math.prod(shape) * taps, shape[0] * taps, always=True)
        return self.made(shape, self.product_item)

    @property
    def product_item(self) -> int:
        """Bytes per element of what a product makes."""
        return BF16 if self.mixed else self.word

    def _product(self, value: Value, flops: int, weights: int, *, always: bool = False) -> None:
        """A product with weights: as much work again for their gradient, and for the input's where it needs one.

        Under autocast the bfloat16 copies of input and weights are what is kept, of weights where they are needed or `always`.
        """
        self.forward += flops * self.batch * self.copies
        self.backward += flops * self.batch * self.copies * (value.grad + (not self.resting))
        needed = always or not self.resting
        if self.mixed and value.item != BF16:
            self.made(value.shape, BF16, kept=needed)
        elif needed:
            self.keep(value)
        if self.mixed and (value.grad or always):
            self.casts += weights * BF16 * self.copies

    def activation(self, value: Value, kind: Activation) -> Value:
        """Some keep what goes in, some what comes out."""
        match kind:
            case "relu" | "tanh" | "sigmoid":
                return self.made(value.shape, value.item, kept=value.grad, grad=value.grad)
            case "relu_squared":
                self.made(value.shape, value.item, kept=value.grad)
            case "identity":
                return value
            case "gelu" | "gelu_tanh" | "silu" | "leaky_relu" | "elu" | "relu6" | "selu" | "mish" | "softplus" | "hardswish":
                if value.grad:
                    self.keep(value)
            case _:
                assert_never(kind)
        return self.made(value.shape, value.item, grad=value.grad)

    def dropout(self, value: Value, p: float) -> Value:
        """CPU kernels keep the mask in the format of the values, GPU kernels as bytes."""
        if p == 0:
            return value
        if value.grad:
            self.keep_more(value.size, 1 if self.gpu else value.item)
        return self.made(value.shape, value.item, grad=value.grad)

    def norm(self, value: Value, kind: Literal["batch", "layer", "rms", "group"], width: int, *, learned: bool = True) -> Value:
        """Statistics are kept per feature (batch), per group (of which there are `width`) or per row; the CPU's rms works in
        float32 and keeps what its weight multiplies.
        """
        if kind == "rms" and not self.gpu and value.item == BF16:
            self.made(value.shape, FP32, kept=True)
        else:
            self.keep(value)
        statistic = FP32 if self.gpu else self.word if learned else value.item
        match kind:
            case "batch":
                self.keep_more(2 * width, FP32 if learned else value.item, per_sample=False)
            case "layer":
                self.keep_more(2 * value.size // width, statistic)
            case "group":
                self.keep_more(2 * width, statistic)
            case "rms":
                self.keep_more(value.size // width)
                if learned and not self.gpu:
                    self.made(value.shape, FP32, kept=True)
            case _:
                assert_never(kind)
        return self.made(value.shape, value.item)

    def statistics(self, part: str, name: str, width: int) -> None:
        """Running mean, running variance and number of batches, an int64, that batch normalisation carries."""
        self.remember(part, f"{name}.running_mean", (width,))
        self.remember(part, f"{name}.running_var", (width,))
        self.remember(part, f"{name}.num_batches_tracked", ())

    def add(self, left: Value, right: Value) -> Value:
        return self.made(left.shape, max(left.item, right.item), grad=left.grad or right.grad)

    def multiply(self, left: Value, right: Value) -> Value:
        self.keep(left)
        self.keep(right)
        return self.made(left.shape, max(left.item, right.item))

    def attention(self, query: Value, key: Value, content: Value, p: float, *, plain: bool) -> Value:
        """Causal, of (heads, length, width) and fewer key heads; the mask is not discounted from the FLOPs.

        `plain`: queries are views of their projection.

        The fused kernel keeps its operands, its output and a sum per row. The CPU has none with dropout, or for values of another
        width than keys: it keeps scaled operands, for shared key heads their copies, and tensors of scores, all in float32.
        """
        heads, length, width = query.shape
        wide = content.shape[-1]
        self._scores(query, wide)
        if (p > 0 or width != wide) and not self.gpu:
            self.keep_more(2 * query.size + heads * length * wide + (3 if p > 0 else 1) * heads * length * length, FP32)
            if heads == 1 and query.item == FP32:  # one head needs no copy of what it gathers: the view itself is kept
                self.keep_more(-length * wide, FP32)
                self.keep(content)
            return self.made((length, heads * wide), query.item)
        for value in (query, key, content):
            self.keep(value)
        self.keep_more(heads * length)
        joined = self.made((length, heads * wide), query.item, kept=True)
        # Queries that are no view of the projection lie head by head, and so does what the CPU makes of them: joining copies it.
        separate = not plain and heads > 1 and not self.gpu
        return self.made(joined.shape, joined.item) if separate else joined

    def capped_attention(self, query: Value, key: Value, content: Value, p: float) -> Value:
        """Step by step, with scores that are bent into a bound."""
        heads, length, _ = query.shape
        wide = content.shape[-1]
        self._scores(query, wide)
        scores = (heads, length, length)
        copied = key.shape[0] != heads
        for value in (query, key, content):
            if copied and value is not query:
                self.made((heads, *value.shape[1:]), value.item, kept=True)
            elif heads > 1:
                self.made(value.shape, value.item, kept=True)
            else:
                self.keep(value)
        self.made(scores, query.item, kept=True)  # what tanh gives
        weights = self.dropout(self.made(scores, FP32 if self.mixed and self.gpu else query.item, kept=True), p)
        self.keep(self.cast(weights))
        return self.made((length, heads * wide), query.item)

    def chosen(self, value: Value, count: int) -> Value:
        """So many places of each sample, picked out by a mask, which is kept."""
        self.keep_more(value.shape[0], 1)
        return self.made((count, value.shape[-1]), value.item)

    def softcap(self, value: Value) -> Value:
        """Values bent into a bound: what tanh gives is kept."""
        return self.made(value.shape, self.made(value.shape, value.item, kept=True).item)

    def _scores(self, query: Value, wide: int) -> None:
        """The two products of attention, and on the way back two for each."""
        heads, length, width = query.shape
        work = 2 * self.batch * heads * length * length * (width + wide) * self.copies
        self.forward += work
        self.backward += 2 * work
