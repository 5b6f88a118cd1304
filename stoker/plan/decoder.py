"""The transformer decoder on paper, as `worker.trainer.model.transformer_decoder` builds it."""

from stoker.plan.parts import normalized
from stoker.plan.tape import INT64, Tape, Value
from stoker.plan.transformer import play_blocks, play_positions
from stoker.spec.model.transformer_decoder import TransformerDecoder


def play_decoder(tape: Tape, spec: TransformerDecoder, length: int, vocabulary: int, *, again: tuple[int, ...] = ()) -> Value:
    """Logits of one micro-batch of windows."""
    width, apart = spec.hidden_size, spec.embedded != spec.hidden_size
    tape.learn("embedding", "tokens.weight", (vocabulary, spec.embedded))
    tape.keep_more(length, INT64)
    stream = tape.made((length, spec.embedded))
    if apart:
        stream = tape.linear(stream, width, "embedding", "widen", bias=False)
    stream = tape.dropout(play_positions(tape, spec, stream), spec.embedding_dropout)
    stream = play_blocks(tape, spec, stream, again=again)
    stream = normalized(tape, stream, spec.normalization, width, "head", "norm")
    if apart and spec.tie_embeddings:
        stream = tape.linear(stream, spec.embedded, "head", "widen", bias=False, tied=True)
    tape.ahead_of_head(stream)
    logits = tape.linear(stream, vocabulary, "head", "head", bias=False, tied=spec.tie_embeddings)
    return logits if spec.final_softcap is None else tape.softcap(logits)
