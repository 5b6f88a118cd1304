"""How text becomes tokens. Built by `worker.trainer.data.tokenizer`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Count, DatasetRef, Knob, Natural, Spec


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


class FileTokenizer(Spec):
    """That of a published model: its `tokenizer.json`, as Hugging Face's tokenizers writes it. Nothing is learned."""

    type: Literal["file"] = "file"
    """Which tokenizer this is."""
    source: Annotated[DatasetRef, Knob("data set", (), ("DATA-17",))]
    """Data set of weights with a `tokenizer.json`, by name or `name@version`; without a version the newest at submit."""
    vocab_size: Annotated[Annotated[int, Field(ge=1, le=1_000_000)] | None, Knob("tokens", ("memory", "speed"), ("DATA-17",))] = (
        None
    )
    """Rows of the embedding, where the model has more than the file has tokens; null = as many as the file has."""
    special_tokens: Annotated[bool, Knob(affects=("quality",), rows=("DATA-17",))] = True
    """Put the tokens around each text of a table that the file says, as BERT's [CLS] and [SEP]; a stream of text never has them."""
    mask_id: Annotated[Natural | None, Knob(affects=("quality",), rows=("DATA-17",))] = None
    """Token that hides others, for masked_lm; unset, the file's, and where it has none, one row more."""
    pad_id: Annotated[Natural | None, Knob(affects=("quality",), rows=("DATA-17",))] = None
    """Token that fills up texts of a table; unset, the file's, and where it has none, one row more."""


Tokenizer = Annotated[ByteTokenizer | CharTokenizer | Bpe | FileTokenizer, Field(discriminator="type")]
