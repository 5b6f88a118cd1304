"""Rules of `data.tokenizer`."""

from collections.abc import Iterator

from stoker.spec.data import CharTokenizer, FileTokenizer, reads_text
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule


@rule(
    "tokenizer-needs-text",
    reads=("/data/source", "/data/tokenizer", "/data/sequence"),
    message="`data.{key}` needs text, and the source has numbers or pictures",
    hint="remove `data.{key}`, or use a source of text",
)
def tokens_need_text(case: Case) -> Iterator[Hit]:
    data = case.spec.data
    if reads_text(data.source):
        return
    for key, part in (("tokenizer", data.tokenizer), ("sequence", data.sequence)):
        if part is not None:
            yield hit(f"/data/{key}", key=key)


@rule(
    "text-characters",
    reads=("/data/source", "/data/tokenizer"),
    message="the characters of a column are not counted at upload, so nobody knows how many tokens there would be",
    hint="use tokenizer byte, bpe or file",
)
def characters_uncounted(case: Case) -> Iterator[Hit]:
    if case.text_in_table and isinstance(case.spec.data.tokenizer, CharTokenizer):
        yield hit("/data/tokenizer", ("byte", "bpe", "file"))


@rule(
    "token-beyond-vocabulary",
    reads=("/data/tokenizer",),
    message="`{key}` is {token}, and the tokenizer has {rows} tokens, 0 to {last}",
    hint="set `{key}` to a token of the tokenizer file, or leave it out",
)
def tokens_beyond(case: Case) -> Iterator[Hit]:
    known = case.spec.data.tokenizer
    if not isinstance(known, FileTokenizer) or known.vocab_size is None:
        return
    for key, token in (("mask_id", known.mask_id), ("pad_id", known.pad_id)):
        if token is not None and token >= known.vocab_size:
            yield hit(f"/data/tokenizer/{key}", key=key, token=token, rows=known.vocab_size, last=known.vocab_size - 1)
