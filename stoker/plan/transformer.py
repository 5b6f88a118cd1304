"""Blocks of transformers on paper, as `worker.trainer.model.transformer` builds them."""

from typing import assert_never

from stoker.plan.parts import normalized
from stoker.plan.tape import BF16, INT64, Tape, Value
from stoker.spec.model.transformer import AlibiPosition, LearnedPosition, RotaryPosition, SinusoidalPosition, Transformer


def play_positions(tape: Tape, spec: Transformer, stream: Value) -> Value:
    """Embeddings with the places of their tokens; a table is in the format of the weights, and so is the sum then."""
    length, added = stream.shape[0], stream.item
    match spec.position:
        case LearnedPosition(max_length=rows):
            tape.learn("embedding", "positions.weight", (rows or length, spec.hidden_size))
            tape.keep_more(length, INT64, per_sample=False)
            added = max(added, tape.word)
        case SinusoidalPosition():
            added = max(added, tape.word)
        case AlibiPosition():
            pass
        case RotaryPosition(dim=dim):
            if not (tape.mixed or tape.pure):
                tape.keep_more(length * (dim or spec.key_width), per_sample=False)
        case _:
            assert_never(spec.position)
    return tape.made(stream.shape, added)


def play_blocks(tape: Tape, spec: Transformer, stream: Value, *, again: tuple[int, ...], padded: bool = False) -> Value:
    """One block is played, and stands for all; those of `again` keep their inputs alone."""
    tape.keep_more(_bias(spec, stream.shape[0]), tape.product_item, per_sample=False)
    if padded and _added(spec):
        tape.keep_more(stream.shape[0], tape.product_item)
    tape.copies = spec.num_layers
    before, high, inputs = tape.saved, tape.high, stream
    stream = _block(tape, spec, stream)
    tape.copies = 1
    tape.forget(before, high, inputs, again, spec.num_layers)
    # What the last block gives is a tensor of its own, whether or not a block kept one like it.
    return tape.made(stream.shape, stream.item)


def _bias(spec: Transformer, length: int) -> int:
    """Elements of what is added to scores, one for all blocks, where the backward pass of the kernel reads it again."""
    if not _added(spec):
        return 0
    if isinstance(spec.position, AlibiPosition):
        return spec.num_heads * length * length
    return 0 if spec.window is None else length * length


def _added(spec: Transformer) -> bool:
    """Whether the backward pass reads again what was added to scores."""
    return spec.attention_softcap is None and spec.attention_dropout == 0 and spec.value_width == spec.key_width


def _block(tape: Tape, spec: Transformer, stream: Value) -> Value:
    if spec.norm_placement == "pre":
        stream = tape.add(stream, _attention(tape, spec, _norm(tape, spec, stream, "attention")))
        return tape.add(stream, _feed_forward(tape, spec, _norm(tape, spec, stream, "ffn")))
    stream = _norm(tape, spec, tape.add(stream, _attention(tape, spec, stream)), "attention")
    return _norm(tape, spec, tape.add(stream, _feed_forward(tape, spec, stream)), "ffn")


def _norm(tape: Tape, spec: Transformer, value: Value, part: str) -> Value:
    return normalized(tape, value, spec.normalization, spec.hidden_size, part, f"blocks.{{}}.{part}_norm")


def _attention(tape: Tape, spec: Transformer, value: Value) -> Value:
    length, width = value.shape[0], spec.key_width
    heads, shared = spec.num_heads, spec.kv_heads
    value = tape.cast(value)
    query, key, content = (
        tape.linear(value, n * w, "attention", f"blocks.{{}}.attention.{name}", bias=spec.bias).viewed(n, length, w)
        for name, n, w in (("q", heads, width), ("k", shared, width), ("v", shared, spec.value_width))
    )
    plain = not spec.qk_norm and not isinstance(spec.position, RotaryPosition)
    if spec.qk_norm:
        query, key = (tape.norm(part, "rms", width, learned=False) for part in (query, key))
    if isinstance(spec.position, RotaryPosition):
        query, key = (_rotated(tape, part, spec.position.dim or width) for part in (query, key))
    if spec.attention_softcap is not None:
        mixed = tape.capped_attention(query, key, content, spec.attention_dropout)
    else:
        mixed = tape.attention(query, key, content, spec.attention_dropout, plain=plain)
    out = tape.linear(mixed, spec.hidden_size, "attention", "blocks.{}.attention.out", bias=spec.bias)
    return tape.dropout(out, spec.dropout)


def _rotated(tape: Tape, part: Value, dim: int) -> Value:
    """The table of angles is shared by all, but where it must be cast, each use keeps its own."""
    if tape.mixed or tape.pure:
        tape.keep_more(part.shape[1] * dim, BF16, per_sample=False)
    return tape.made(part.shape, part.item)


def _feed_forward(tape: Tape, spec: Transformer, value: Value) -> Value:
    value = tape.cast(value)
    name = "gate" if spec.gated_ffn else "up"
    active = tape.activation(tape.linear(value, spec.inner, "ffn", f"blocks.{{}}.ffn.{name}", bias=spec.bias), spec.activation)
    if spec.gated_ffn:
        active = tape.multiply(active, tape.linear(value, spec.inner, "ffn", "blocks.{}.ffn.up", bias=spec.bias))
    return tape.dropout(tape.linear(active, spec.hidden_size, "ffn", "blocks.{}.ffn.down", bias=spec.bias), spec.dropout)
