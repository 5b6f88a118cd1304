"""How text becomes tokens. Built by `worker.trainer.data.tokenizer`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec._base import Count, DatasetRef, Knob, Natural, Size, Spec


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


class HFTokenizer(Spec):
    """That of a Hugging Face directory, its tokenizer.json: a token has the id that the directory's weights know it by."""

    type: Literal["hf"] = "hf"
    """Which tokenizer this is."""
    source: Annotated[DatasetRef | None, Knob("data set", ("quality",), ("DATA-17",))] = None
    """Data set of weights with tokenizer.json, by name or `name@version`; unset, that of `model.source`."""
    vocab_size: Annotated[Size | None, Knob("tokens", ("memory", "speed"), ("DATA-17",))] = None
    """Rows of the embedding; unset, vocab_size of config.json, or as many as the tokenizer has ids."""
    mask_id: Annotated[Natural | None, Knob(affects=("quality",), rows=("DATA-17",))] = None
    """Token that hides others, for masked_lm; unset, the directory's, and where it has none, one row more."""
    pad_id: Annotated[Natural | None, Knob(affects=("quality",), rows=("DATA-17",))] = None
    """Token that fills up texts of a table; unset, the directory's, and where it has none, one row more."""


Tokenizer = Annotated[ByteTokenizer | CharTokenizer | Bpe | HFTokenizer, Field(discriminator="type")]
