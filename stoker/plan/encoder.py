"""The transformer encoder on paper, as `worker.trainer.model.transformer_encoder` builds it."""

from stoker.plan.parts import normalized
from stoker.plan.tape import INT64, Tape, Value
from stoker.plan.transformer import play_blocks, play_positions
from stoker.spec.model.transformer_encoder import TransformerEncoder


def play_encoder(
    tape: Tape,
    spec: TransformerEncoder,
    samples: Value,
    outputs: int,
    *,
    vocabulary: int | None,
    filled: bool = True,
    again: tuple[int, ...] = (),
) -> Value:
    """Logits of every token of one micro-batch where text is to be `filled` in; else what the head says of the whole.

    `vocabulary`: None where samples are numbers.
    """
    padded = vocabulary is not None and not filled
    stream = _encoded(tape, spec, samples, vocabulary, again, padded=padded)
    if vocabulary is not None and filled:
        return _masked(tape, spec, stream, outputs)
    return _pooled(tape, spec, stream, outputs, padded=padded)


def _encoded(
    tape: Tape, spec: TransformerEncoder, samples: Value, vocabulary: int | None, again: tuple[int, ...], *, padded: bool
) -> Value:
    length, width = samples.shape[0], spec.hidden_size
    if vocabulary is None:
        stream = tape.linear(samples, width, "embedding", "widen", bias=True)
    else:
        tape.learn("embedding", "tokens.weight", (vocabulary, spec.embedded))
        tape.keep_more(length, INT64)
        stream = tape.made((length, spec.embedded))
        if spec.embedded != width:
            stream = tape.linear(stream, width, "embedding", "widen", bias=False)
    stream = play_positions(tape, spec, stream)
    if spec.segments:
        tape.learn("embedding", "segments.weight", (spec.segments, width))
        stream = tape.made(stream.shape, max(stream.item, tape.word))
    if spec.embedding_norm:
        stream = normalized(tape, stream, spec.normalization, width, "embedding", "embedding_norm")
    stream = play_blocks(tape, spec, tape.dropout(stream, spec.embedding_dropout), again=again, padded=padded)
    return normalized(tape, stream, spec.normalization, width, "head", "norm") if spec.norm_placement == "pre" else stream


def _masked(tape: Tape, spec: TransformerEncoder, stream: Value, vocabulary: int) -> Value:
    if spec.head_transform:
        stream = tape.activation(tape.linear(stream, spec.hidden_size, "head", "transform", bias=spec.bias), spec.activation)
        stream = normalized(tape, stream, spec.normalization, spec.hidden_size, "head", "transform_norm")
        tape.learn("head", "head_bias", (vocabulary,))
    if spec.embedded != spec.hidden_size and spec.tie_embeddings:
        stream = tape.linear(stream, spec.embedded, "head", "widen", bias=False, tied=True)
    return tape.linear(stream, vocabulary, "head", "head", bias=False, tied=spec.tie_embeddings)


def _pooled(tape: Tape, spec: TransformerEncoder, stream: Value, outputs: int, *, padded: bool) -> Value:
    """The mean of what is no padding keeps where the padding is, and how many tokens there are."""
    width = stream.shape[-1]
    if padded and spec.pooling == "mean":
        tape.keep_more(stream.shape[0], 1)
        tape.keep_more(1, INT64)
        stream = tape.made(stream.shape, stream.item)
    whole = stream.viewed(width) if spec.pooling == "first" else tape.made((width,), stream.item)
    if spec.pooler:
        whole = tape.activation(tape.linear(whole, width, "head", "pooler", bias=spec.bias), "tanh")
    return tape.linear(whole, outputs, "head", "head", bias=True)
