"""How text becomes tokens. Built by `worker.trainer.data.tokenizer`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec._base import Count, Knob, Spec


class ByteTokenizer(Spec):
    """One token per UTF-8 byte; 256 tokens."""

    type: Literal["byte"] = "byte"
    """Which tokenizer this is."""


class CharTokenizer(Spec):
    """One token per character of the data set, plus one for characters never seen."""

    type: Literal["char"] = "char"
    """Which tokenizer this is."""


class Bpe(Spec):
    """Byte-level byte-pair encoding learned from the training split (Sennrich et al. 2016)."""

    type: Literal["bpe"] = "bpe"
    """Which tokenizer this is."""
    vocab_size: Annotated[
        Annotated[int, Field(ge=257, le=1_000_000)], Knob("tokens", ("memory", "speed", "quality"), ("DATA-17",))
    ] = 4096
    """Rows of the embedding; learning stops there."""
    min_frequency: Annotated[Count, Knob("occurrences", ("quality",), ("DATA-17",))] = 2
    """Pairs seen less often are not merged."""


Tokenizer = Annotated[ByteTokenizer | CharTokenizer | Bpe, Field(discriminator="type")]
