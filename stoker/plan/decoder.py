"""The transformer decoder on paper, as `worker.trainer.model.transformer_decoder` builds it."""

from stoker.plan.parts import normalized
from stoker.plan.tape import BF16, FP32, INT64, Tape, Value
from stoker.spec.model.transformer_decoder import LearnedPosition, TransformerDecoder


def play_decoder(tape: Tape, spec: TransformerDecoder, length: int, vocabulary: int) -> Value:
    """Logits of one micro-batch of windows. One block is played, and stands for all."""
    width = spec.hidden_size
    tape.learn("embedding", "embedding.weight", (vocabulary, width))
    tape.keep_extra(length, INT64)
    stream = tape.value((length, width))
    if isinstance(spec.position, LearnedPosition):
        tape.learn("embedding", "position.weight", (length, width))
    stream = tape.dropout(stream, spec.embedding_dropout)
    tape.copies = spec.num_layers
    stream = _block(tape, spec, Value(stream.shape))
    tape.copies = 1
    stream = normalized(tape, Value(stream.shape), spec.normalization, "head", "norm")
    return tape.linear(stream, vocabulary, "head", "head", bias=False, tied=spec.tie_embeddings)


def _block(tape: Tape, spec: TransformerDecoder, stream: Value) -> Value:
    if spec.norm_placement == "pre":
        stream = tape.add(stream, _attention(tape, spec, _norm(tape, spec, stream, "attention")))
        return tape.add(stream, _feed_forward(tape, spec, _norm(tape, spec, stream, "ffn")))
    stream = _norm(tape, spec, tape.add(stream, _attention(tape, spec, stream)), "attention")
    return _norm(tape, spec, tape.add(stream, _feed_forward(tape, spec, stream)), "ffn")


def _norm(tape: Tape, spec: TransformerDecoder, value: Value, part: str) -> Value:
    return normalized(tape, value, spec.normalization, part, "blocks.{}." + f"{part}_norm")


def _attention(tape: Tape, spec: TransformerDecoder, value: Value) -> Value:
    heads, kv_heads = spec.num_heads, spec.num_kv_heads or spec.num_heads
    dim = spec.key_dim or spec.hidden_size // heads
    length, name = value.shape[0], "blocks.{}.attention"
    query = tape.linear(value, heads * dim, "attention", f"{name}.query", bias=spec.bias)
    key = tape.linear(value, kv_heads * dim, "attention", f"{name}.key", bias=spec.bias)
    content = tape.linear(value, kv_heads * dim, "attention", f"{name}.value", bias=spec.bias)
    if spec.qk_norm:
        query, key = tape.norm(query, "rms", dim), tape.norm(key, "rms", dim)
    item = BF16 if tape.mixed else FP32
    query, key, content = (Value(v.shape, item) for v in (query, key, content))
    mixed = tape.attention(query, key, content, heads, length, spec.attention_dropout)
    out = tape.linear(mixed, spec.hidden_size, "attention", f"{name}.output", bias=spec.bias)
    return tape.dropout(out, spec.dropout)


def _feed_forward(tape: Tape, spec: TransformerDecoder, value: Value) -> Value:
    inner, name = spec.ffn_size or 4 * spec.hidden_size, "blocks.{}.ffn"
    branch = tape.activation(tape.linear(value, inner, "ffn", f"{name}.up", bias=spec.bias), spec.activation)
    if spec.gated_ffn:
        gate = tape.linear(value, inner, "ffn", f"{name}.gate", bias=spec.bias)
        tape.keep(branch)
        tape.keep(gate)
        branch = tape.value(branch.shape, branch.item)
    return tape.dropout(tape.linear(branch, spec.hidden_size, "ffn", f"{name}.down", bias=spec.bias), spec.dropout)
