"""The data set and its format. Built by `worker.trainer.data.source`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import DatasetRef, Knob, Size, Spec

Column = Annotated[str, Field(min_length=1, max_length=256)]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class Csv(Spec):
    """Comma-separated tables with a header row; several files are read in name order."""

    type: Literal["csv"] = "csv"
    """Which format this is."""
    dataset: Annotated[DatasetRef, Knob(rows=("DATA-01",))]
    """Data set by name, or `name@version`; without a version the newest at submit."""
    columns: Annotated[tuple[Column, ...] | None, Knob("columns", ("memory", "quality"))] = None
    """Feature columns, in this order; unset, every column but target and weight, and none beside a column of text."""
    text: Annotated[Column | None, Knob(affects=("quality",), rows=("DATA-17",))] = None
    """Column of text that is read as tokens, in place of numbers; null for numbers."""
    delimiter: Annotated[Literal[",", ";", "\t", "|"], Knob("character")] = ","
    """What separates two cells."""


class Parquet(Spec):
    """Apache Parquet tables; several files are read in name order."""

    type: Literal["parquet"] = "parquet"
    """Which format this is."""
    dataset: Annotated[DatasetRef, Knob(rows=("DATA-01",))]
    """Data set by name, or `name@version`; without a version the newest at submit."""
    columns: Annotated[tuple[Column, ...] | None, Knob("columns", ("memory", "quality"))] = None
    """Feature columns, in this order; unset, every column but target and weight, and none beside a column of text."""
    text: Annotated[Column | None, Knob(affects=("quality",), rows=("DATA-17",))] = None
    """Column of text that is read as tokens, in place of numbers; null for numbers."""


class Text(Spec):
    """UTF-8 text for language models; several files are joined in name order."""

    type: Literal["text"] = "text"
    """Which format this is."""
    dataset: Annotated[DatasetRef, Knob(rows=("DATA-01",))]
    """Data set by name, or `name@version`; without a version the newest at submit."""


class ImageFolder(Spec):
    """Pictures in one folder per class, PNG or JPEG, read as values from 0 to 1."""

    type: Literal["image_folder"] = "image_folder"
    """Which format this is."""
    dataset: Annotated[DatasetRef, Knob(rows=("DATA-01",))]
    """Data set by name, or `name@version`; without a version the newest at submit."""
    channels: Annotated[Literal[1, 3], Knob("channels", ("memory", "speed"))] = 3
    """Grey or RGB."""
    height: Annotated[Size | None, Knob("pixels", ("memory", "speed", "quality"))] = None
    """Height that pictures are resized to; unset, that of the first one, and all must agree."""
    width: Annotated[Size | None, Knob("pixels", ("memory", "speed", "quality"))] = None
    """Width that pictures are resized to; unset, that of the first one, and all must agree."""


class Arrays(Spec):
    """NumPy arrays, one of inputs and one of targets, of equal length."""

    type: Literal["arrays"] = "arrays"
    """Which format this is."""
    dataset: Annotated[DatasetRef, Knob(rows=("DATA-01",))]
    """Data set by name, or `name@version`; without a version the newest at submit."""
    inputs: Annotated[FileName, Knob("file name")] = "x.npy"
    """File of inputs: (samples, features) or (samples, channels, height, width)."""
    targets: Annotated[FileName, Knob("file name")] = "y.npy"
    """File of targets: classes as integers (samples,), or numbers (samples,) or (samples, outputs)."""


Source = Annotated[Csv | Parquet | Text | ImageFolder | Arrays, Field(discriminator="type")]


def text_column(source: Source) -> str | None:
    """The column of a table that holds the samples, where they are texts."""
    return source.text if isinstance(source, Csv | Parquet) else None


def reads_text(source: Source) -> bool:
    """Whether samples are tokens: windows of one text, or a text each."""
    return isinstance(source, Text) or text_column(source) is not None
