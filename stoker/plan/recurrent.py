"""Recurrent networks on paper, as `worker.trainer.model.recurrent` builds them.

What autograd keeps of them was measured with PyTorch 2.11 and 2.13 on a CPU: plain recurrences and GRUs are played step by step,
an LSTM without projection by oneDNN, which keeps a workspace. For a GPU, whose library says nothing of what it keeps, the sizes
are those of the gates and states that it must.
"""

from typing import assert_never

from stoker.plan.tape import BF16, FP32, INT64, Tape, Value
from stoker.spec.model.recurrent import GRU, LSTM, RNN

Cell = RNN | LSTM | GRU


def play_recurrent(tape: Tape, spec: Cell, samples: Value, outputs: int, *, text: bool) -> Value:
    """Logits of every token of one micro-batch of windows, or what the head says at the end of sequences of numbers."""
    steps = samples.shape[0]
    value = samples.viewed(steps, samples.shape[1] if len(samples.shape) == 2 else 1)
    if text:
        width = spec.embedding_size or spec.hidden_size
        tape.learn("embedding", "tokens.weight", (outputs, width))
        tape.keep_more(steps, INT64)
        value = tape.made((steps, width))
    for layer in range(spec.num_layers):
        value = _layer(tape, spec, value, layer)
    if not text:
        said = value.viewed(spec.width)
        end = tape.made((spec.width,), value.item, kept=True) if spec.bidirectional else said
        return tape.linear(end, outputs, "head", "head", bias=spec.bias)
    # The head reads a copy, with the batch in front again.
    return tape.linear(tape.made(value.shape, value.item), outputs, "head", "head", bias=False, tied=spec.tie_embeddings)


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


def _layer(tape: Tape, spec: Cell, value: Value, layer: int) -> Value:
    """(steps, features) to (steps, width), both directions."""
    steps, features = value.shape
    inner = FP32 if isinstance(spec, GRU) and tape.mixed and not tape.gpu else BF16 if tape.mixed else tape.word
    _read(tape, spec, value, layer)
    for direction in ("", "_reverse")[: spec.directions]:
        _learn(tape, spec, features, f"layers.{{}}_l{layer}{direction}", layer)
        _products(tape, spec, steps, features, grad=value.grad)
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


def _learn(tape: Tape, spec: Cell, features: int, name: str, layer: int) -> None:
    rows, part = gates(spec) * spec.hidden_size, f"recurrent {layer}"
    tape.learn(part, name.format("weight_ih"), (rows, features))
    tape.learn(part, name.format("weight_hh"), (rows, spec.says))
    if spec.bias:
        tape.learn(part, name.format("bias_ih"), (rows,))
        tape.learn(part, name.format("bias_hh"), (rows,))
    if spec.says != spec.hidden_size:
        tape.learn(part, name.format("weight_hr"), (spec.says, spec.hidden_size))


def _products(tape: Tape, spec: Cell, steps: int, features: int, *, grad: bool) -> None:
    """Nothing goes back into the state that the first step begins with."""
    rows, projected = gates(spec) * spec.hidden_size, spec.says != spec.hidden_size
    reading, moving = 2 * rows * features, 2 * rows * spec.says
    saying = 2 * spec.hidden_size * spec.says if projected else 0
    tape.forward += tape.batch * steps * (reading + moving + saying)
    tape.backward += tape.batch * (steps * ((2 if grad else 1) * reading + moving + 2 * saying) + (steps - 1) * moving)
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
