"""Recurrent networks on paper, as `worker.trainer.model.recurrent` builds them.

What autograd keeps of them was measured with PyTorch 2.11 and 2.13 on a CPU: plain recurrences and GRUs are played step by step,
an LSTM without projection by oneDNN, which keeps a workspace. For a GPU, whose library says nothing of what it keeps, the sizes
are those of the gates and states that it must.
"""

from dataclasses import dataclass
from typing import assert_never

from stoker.plan.tape import BF16, FP32, INT64, Tape, Value
from stoker.spec import JobSpec
from stoker.spec.model.recurrent import GRU, LSTM, RNN
from stoker.spec.training.truncation import TBPTT

Cell = RNN | LSTM | GRU
HEADER_BYTES = 400
"""Of the file that keeps them, with its line in the manifest."""


@dataclass(frozen=True)
class Walk:
    """Steps that a micro-batch takes through time; without windows, all four are the length of a sample or one."""

    kept: int
    """Steps of the longest pass."""
    forward: int
    """Steps forwards, over all passes; windows that overlap take some of them again."""
    backward: int
    """Steps backwards, over all passes."""
    begins: int
    """Passes, whose first step hands no gradient to the state before it."""
    said: int
    """Outputs of one pass, for text."""


def walk_of(length: int, cut: TBPTT | None, *, text: bool) -> Walk:
    """How a sample of some length is gone through."""
    if cut is None:
        return Walk(length, length, length, 1, length)
    steps, stride = min(cut.steps, length), cut.stride or cut.steps
    if not text:
        return Walk(steps, length, steps, 1, 1)
    windows = -(-length // stride)
    # Window i ends at i strides and begins `steps` before, but not before the sample: the first ones are shorter.
    short = min(windows - 1, -(-cut.steps // stride) - 1)
    taken = length - max(0, windows * stride - cut.steps)  # the last
    taken += stride * short * (short + 1) // 2 + (windows - 1 - short) * cut.steps
    return Walk(steps, taken, taken, windows, min(stride, length))


def play_recurrent(
    tape: Tape,
    spec: Cell,
    samples: Value,
    outputs: int,
    *,
    text: bool,
    vocabulary: int | None = None,
    cut: TBPTT | None = None,
) -> Value:
    """Logits of every token of one micro-batch of windows, or what the head says at the end of sequences of numbers, or of
    texts, of whose tokens there are `vocabulary`.
    """
    length = samples.shape[0]
    walk = walk_of(length, cut, text=text)
    tape.windows = walk.begins
    value = samples.viewed(walk.kept, samples.shape[1] if len(samples.shape) == 2 else 1)
    if text:
        width = spec.embedding_size or spec.hidden_size
        tape.learn("embedding", "tokens.weight", (vocabulary or outputs, width))
        tape.keep_more(walk.kept, INT64)
        value = tape.made((walk.kept, width))
    value = play_cells(tape, spec, value, walk)
    if vocabulary is not None:
        tape.keep_more(2, INT64)  # which sample, and where its text ends
        return tape.linear(tape.made((spec.width,), value.item), outputs, "head", "head", bias=spec.bias)
    if not text:
        said = value.viewed(spec.width)
        end = tape.made((spec.width,), value.item, kept=True) if spec.bidirectional else said
        return tape.linear(end, outputs, "head", "head", bias=spec.bias)
    others = 2 * tape.batch * (length - walk.said) * spec.width * outputs
    tape.forward, tape.backward = tape.forward + others, tape.backward + 2 * others
    # The head reads a copy, with the batch in front again.
    said = tape.made((walk.said, spec.width), value.item)
    return tape.linear(said, outputs, "head", "head", bias=False, tied=spec.tie_embeddings)


def play_cells(tape: Tape, spec: Cell, value: Value, walk: Walk, part: str = "recurrent", prefix: str = "") -> Value:
    """(steps, features) to what the last layer says at every step. `prefix`: of the names of its weights."""
    for layer in range(spec.num_layers):
        value = _layer(tape, spec, value, layer, walk, part if prefix else f"{part} {layer}", prefix)
    return value


def gates(spec: Cell) -> int:
    """Sums of input and state at every step, each as wide as the state."""
    match spec:
        case RNN():
            return 1
        case GRU():
            return 3
        case LSTM():
            return 4
        case _:
            assert_never(spec)


def _layer(tape: Tape, spec: Cell, value: Value, layer: int, walk: Walk, part: str, prefix: str) -> Value:
    """(steps, features) to (steps, width), both directions."""
    steps, features = value.shape
    inner = FP32 if isinstance(spec, GRU) and tape.mixed and not tape.gpu else BF16 if tape.mixed else tape.word
    _read(tape, spec, value, layer)
    for direction in ("", "_reverse")[: spec.directions]:
        _learn(tape, spec, features, f"{prefix}layers.{{}}_l{layer}{direction}", part)
        _products(tape, spec, walk, features, grad=value.grad)
        _keep(tape, spec, steps, features)
    # On the way back, the gradients of all gates of a direction stand beside what is kept; measured with a projection, three of four.
    tape.made((steps, (3 if spec.says != spec.hidden_size else gates(spec)) * spec.hidden_size), inner)
    if not _fused(tape, spec):
        return tape.made((steps, spec.width), inner)
    # oneDNN reads weights, and writes their gradients, in an order of its own.
    own = 2 * gates(spec) * spec.hidden_size * (features + spec.hidden_size) * tape.word
    tape.high = max(tape.high, tape.activation_bytes + own)
    if spec.bidirectional:  # what each direction says is kept, beside both of them joined
        tape.keep_more(steps * spec.width, inner)
    return tape.made((steps, spec.width), inner, kept=not spec.bidirectional)


def _fused(tape: Tape, spec: Cell) -> bool:
    """Whether oneDNN plays the layer."""
    return isinstance(spec, LSTM) and spec.says == spec.hidden_size and not tape.gpu


def _read(tape: Tape, spec: Cell, value: Value, layer: int) -> None:
    """Keep what the layer reads; the first one turns its samples around, to have time in front."""
    if layer > 0 and spec.dropout > 0:
        tape.keep_more(value.size, 1 if tape.gpu else value.item)
        value = tape.made(value.shape, value.item)
    item = BF16 if tape.mixed else value.item
    if layer > 0 and item == value.item:
        tape.keep(value)
        return
    copies = 1 if _fused(tape, spec) else spec.directions
    for _ in range(copies):
        tape.made(value.shape, item, kept=True, grad=value.grad)


def _learn(tape: Tape, spec: Cell, features: int, name: str, part: str) -> None:
    rows = gates(spec) * spec.hidden_size
    tape.learn(part, name.format("weight_ih"), (rows, features))
    tape.learn(part, name.format("weight_hh"), (rows, spec.says))
    if spec.bias:
        tape.learn(part, name.format("bias_ih"), (rows,))
        tape.learn(part, name.format("bias_hh"), (rows,))
    if spec.says != spec.hidden_size:
        tape.learn(part, name.format("weight_hr"), (spec.says, spec.hidden_size))


def _products(tape: Tape, spec: Cell, walk: Walk, features: int, *, grad: bool) -> None:
    """Nothing goes back into the state that a pass begins with."""
    rows, projected = gates(spec) * spec.hidden_size, spec.says != spec.hidden_size
    reading, moving = 2 * rows * features, 2 * rows * spec.says
    saying = 2 * spec.hidden_size * spec.says if projected else 0
    tape.forward += tape.batch * walk.forward * (reading + moving + saying)
    back = walk.backward * ((2 if grad else 1) * reading + 2 * moving + 2 * saying) - walk.begins * moving
    tape.backward += tape.batch * back
    if tape.mixed:
        tape.casts += BF16 * rows * ((features if grad else 0) + spec.says)


def _keep(tape: Tape, spec: Cell, steps: int, features: int) -> None:
    """States and gates of every step of one direction."""
    units, half, item = spec.hidden_size, tape.mixed, tape.word
    tape.keep_more(spec.says * (2 if isinstance(spec, LSTM) else 1), item)  # the state to begin with
    match spec:
        case RNN():
            tape.keep_more(steps * units, BF16 if half else item)
        case GRU():
            tape.keep_more(steps * units, 16 if half and not tape.gpu else 7 * item)
        case LSTM() if not _fused(tape, spec):
            tape.keep_more(steps * units, 18 if half and not tape.gpu else 7 * item)
            tape.keep_more(steps * spec.says, BF16 if half else item)
            if half and not tape.gpu:
                tape.keep_more(steps * units * spec.says, BF16, per_sample=False)
        case LSTM():
            tape.keep_more(_workspace(steps, units, features, BF16 if half or tape.pure else FP32), 1)
        case _:
            assert_never(spec)


def _workspace(steps: int, units: int, features: int, item: int) -> int:
    """Bytes per sample of oneDNN's LSTM: gates, states of layers and of time, cells, and room for the gradients of all of them."""
    widest, row = max(units, features), _leading(units, item) * item
    in_float = FP32 * _leading(widest, FP32)
    if item == FP32:
        states = 4 * FP32 * units + row + 6 * in_float
    else:
        states = 12 * units + row + 2 * BF16 * _leading(widest, BF16) + 4 * in_float
    return steps * _leading(4 * units, item) * item + (steps + 1) * states


def _leading(width: int, item: int) -> int:
    """A row as oneDNN lays it out: whole cache lines, and never a multiple of 256."""
    line = 64 // item
    rows = -(-width // line) * line
    return rows + line if rows % 256 == 0 else rows


def streams_bytes(spec: JobSpec) -> int:
    """What the checkpoint of a stateful run keeps of where each stream is."""
    cut, model = spec.training.tbptt, spec.model
    if cut is None or not cut.stateful or not isinstance(model, RNN | LSTM | GRU):
        return 0
    units = model.says + (model.hidden_size if isinstance(model, LSTM) else 0)
    return spec.training.batch_size * model.num_layers * model.directions * units * FP32 + HEADER_BYTES
