"""Rules of `data.sequence`."""

from collections.abc import Iterator

from stoker.spec.model import TransformerDecoder
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule


@rule(
    "text-too-short",
    reads=("/data", "/task"),
    message="the training text has {tokens} tokens, fewer than one sample of {length} and the token after it",
    hint="lower `data.sequence.length`, or hold out less",
)
def text_too_short(case: Case) -> Iterator[Hit]:
    tokens, samples, sequence = case.problem.tokens, case.problem.samples, case.spec.data.sequence
    if tokens is not None and samples is not None and sequence is not None and samples.train < 1:
        yield hit("/data/sequence/length", tokens=tokens.train, length=sequence.length)


@rule(
    "context-parallel-length",
    reads=("/distributed", "/model", "/data/sequence"),
    message="sequences of {length} tokens do not divide into {pieces} pieces, two for each rank",
    hint="set `data.sequence.length` to {nearest}",
)
def context_divides_sequences(case: Case) -> Iterator[Hit]:
    context, sequence = case.context_parallel, case.spec.data.sequence
    if context is None or sequence is None or not isinstance(case.spec.model, TransformerDecoder):
        return
    pieces, length = 2 * context.degree, sequence.length
    if length % pieces:
        yield hit("/data/sequence/length", length=length, pieces=pieces, nearest=max(1, length // pieces) * pieces)


@rule(
    "sequence-parallel-length",
    reads=("/distributed", "/model", "/data/sequence"),
    message="sequences of {length} tokens do not divide among {degree} ranks",
    hint="set `data.sequence.length` to {nearest}",
)
def degree_divides_sequences(case: Case) -> Iterator[Hit]:
    cut, sequence = case.tensor_parallel, case.spec.data.sequence
    if cut is None or sequence is None or not cut.sequence_parallel or not isinstance(case.spec.model, TransformerDecoder):
        return
    if (length := sequence.length) % cut.degree:
        yield hit("/data/sequence/length", length=length, degree=cut.degree, nearest=max(1, length // cut.degree) * cut.degree)
