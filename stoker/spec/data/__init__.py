"""What the model learns from. Built by `worker.trainer.data`."""

from typing import Annotated

from pydantic import Field

from stoker.spec.base import Knob, Spec
from stoker.spec.data.loader import Loader
from stoker.spec.data.normalization import MinMax, Normalization, Standard
from stoker.spec.data.sequence import Sequence
from stoker.spec.data.source import Arrays, Csv, ImageFolder, Parquet, Source, Text, reads_text, text_column
from stoker.spec.data.split import Split
from stoker.spec.data.tokenizer import Bpe, ByteTokenizer, CharTokenizer, FileTokenizer, Tokenizer

SampleWeightColumn = Annotated[str, Field(min_length=1, max_length=256)]


class Data(Spec):
    """Where samples come from and what happens to them before the model."""

    source: Source
    """The data set and its format."""
    sample_weight_column: Annotated[SampleWeightColumn | None, Knob(affects=("quality",), rows=("LOSS-10",))] = None
    """Column of a table that says what each sample weighs in the loss, 0 or more; null for all alike."""
    split: Split = Split()
    """Which part is kept for validation and test."""
    normalization: Annotated[Normalization | None, Knob(affects=("quality",), rows=("DATA-13", "DATA-14"))] = None
    """Rescaling of input features, fitted on the training split; null for none."""
    tokenizer: Annotated[Tokenizer | None, Knob(affects=("quality", "memory"), rows=("DATA-17",))] = None
    """How text becomes tokens, for text only; unset, byte."""
    sequence: Annotated[Sequence | None, Knob(affects=("memory", "speed", "quality"))] = None
    """How tokens become samples, for text only; unset, its defaults."""
    loader: Loader = Loader()
    """How samples become batches."""


__all__ = [
    "Arrays",
    "Bpe",
    "ByteTokenizer",
    "CharTokenizer",
    "Csv",
    "Data",
    "FileTokenizer",
    "ImageFolder",
    "Loader",
    "MinMax",
    "Normalization",
    "Parquet",
    "Sequence",
    "Source",
    "Split",
    "Standard",
    "Text",
    "Tokenizer",
    "reads_text",
    "text_column",
]
