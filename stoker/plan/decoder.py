"""The transformer decoder on paper, as `worker.trainer.model.transformer_decoder` builds it."""

from typing import assert_never

from stoker.plan.parts import normalized
from stoker.plan.tape import BF16, INT64, Tape, Value
from stoker.spec.model.transformer_decoder import LearnedPosition, RotaryPosition, SinusoidalPosition, TransformerDecoder


def play_decoder(tape: Tape, spec: TransformerDecoder, length: int, vocabulary: int, *, again: tuple[int, ...] = ()) -> Value:
    """Logits of one micro-batch of windows. One block is played, and stands for all; those of `again` keep their inputs alone."""
    width = spec.hidden_size
    tape.learn("embedding", "tokens.weight", (vocabulary, width))
    tape.keep_more(length, INT64)
    _positions(tape, spec, length)
    stream = tape.dropout(tape.made((length, width)), spec.embedding_dropout)
    tape.copies = spec.num_layers
    before, high, inputs = tape.saved, tape.high, stream
    stream = _block(tape, spec, stream)
    tape.copies = 1
    tape.forget(before, high, inputs, again, spec.num_layers)
    # What the last block gives is a tensor of its own, whether or not a block kept one like it.
    stream = normalized(tape, tape.made(stream.shape, stream.item), spec.normalization, width, "head", "norm")
    return tape.linear(stream, vocabulary, "head", "head", bias=False, tied=spec.tie_embeddings)


def _positions(tape: Tape, spec: TransformerDecoder, length: int) -> None:
    match spec.position:
        case LearnedPosition():
            tape.learn("embedding", "positions.weight", (length, spec.hidden_size))
            tape.keep_more(length, INT64, per_sample=False)
        case SinusoidalPosition():
            pass
        case RotaryPosition(dim=dim):
            if not (tape.mixed or tape.pure):
                tape.keep_more(length * (dim or _head_width(spec)), per_sample=False)
        case _:
            assert_never(spec.position)


def _head_width(spec: TransformerDecoder) -> int:
    return spec.key_dim or spec.hidden_size // spec.num_heads


def _block(tape: Tape, spec: TransformerDecoder, stream: Value) -> Value:
    if spec.norm_placement == "pre":
        stream = tape.add(stream, _attention(tape, spec, _norm(tape, spec, stream, "attention")))
        return tape.add(stream, _feed_forward(tape, spec, _norm(tape, spec, stream, "ffn")))
    stream = _norm(tape, spec, tape.add(stream, _attention(tape, spec, stream)), "attention")
    return _norm(tape, spec, tape.add(stream, _feed_forward(tape, spec, stream)), "ffn")


def _norm(tape: Tape, spec: TransformerDecoder, value: Value, part: str) -> Value:
    return normalized(tape, value, spec.normalization, spec.hidden_size, part, f"blocks.{{}}.{part}_norm")


def _attention(tape: Tape, spec: TransformerDecoder, value: Value) -> Value:
    length, width = value.shape[0], _head_width(spec)
    heads, shared = spec.num_heads, spec.num_kv_heads or spec.num_heads
    value = tape.cast(value)
    query, key, content = (
        tape.linear(value, n * width, "attention", f"blocks.{{}}.attention.{name}", bias=spec.bias).viewed(n, length, width)
        for name, n in (("q", heads), ("k", shared), ("v", shared))
    )
    plain = not spec.qk_norm and not isinstance(spec.position, RotaryPosition)
    if spec.qk_norm:
        query, key = (tape.norm(part, "rms", width, learned=False) for part in (query, key))
    if isinstance(spec.position, RotaryPosition):
        query, key = (_rotated(tape, part, spec.position.dim or width) for part in (query, key))
    mixed = tape.attention(query, key, content, spec.attention_dropout, plain=plain)
    out = tape.linear(mixed, spec.hidden_size, "attention", "blocks.{}.attention.out", bias=spec.bias)
    return tape.dropout(out, spec.dropout)


def _rotated(tape: Tape, part: Value, dim: int) -> Value:
    """The table of angles is shared by all, but where it must be cast, each use keeps its own."""
    if tape.mixed or tape.pure:
        tape.keep_more(part.shape[1] * dim, BF16, per_sample=False)
    return tape.made(part.shape, part.item)


def _feed_forward(tape: Tape, spec: TransformerDecoder, value: Value) -> Value:
    width = spec.ffn_size or 4 * spec.hidden_size
    value = tape.cast(value)
    name = "gate" if spec.gated_ffn else "up"
    active = tape.activation(tape.linear(value, width, "ffn", f"blocks.{{}}.ffn.{name}", bias=spec.bias), spec.activation)
    if spec.gated_ffn:
        active = tape.multiply(active, tape.linear(value, width, "ffn", "blocks.{}.ffn.up", bias=spec.bias))
    return tape.dropout(tape.linear(active, spec.hidden_size, "ffn", "blocks.{}.ffn.down", bias=spec.bias), spec.dropout)
