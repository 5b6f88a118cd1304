"""What the server measured about a data set when it was uploaded. `resolve` and `plan` read it; the trainer never does."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Facts(BaseModel):
    """Lenient: a newer server may add fields."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ColumnFacts(Facts):
    name: str
    kind: Literal["integer", "number", "boolean", "string", "other"]
    nulls: int = 0
    distinct: int | None = None
    """Number of distinct values, counted up to 100,000; null beyond."""
    counts: dict[str, int] | None = None
    """Rows per value as text, for columns with at most 1,000 distinct values."""


class TableFacts(Facts):
    kind: Literal["table"] = "table"
    format: Literal["csv", "parquet"]
    rows: int
    columns: tuple[ColumnFacts, ...]
    delimiter: str | None = None


class TextFacts(Facts):
    kind: Literal["text"] = "text"
    bytes: int
    characters: int
    distinct_characters: int


class ImageFacts(Facts):
    kind: Literal["images"] = "images"
    counts: dict[str, int]
    """Pictures per class (folder), classes sorted by name."""
    height: int | None
    """Height that all pictures share, else null."""
    width: int | None


class ArrayFile(Facts):
    dtype: str
    """NumPy dtype string, `<f4`."""
    shape: tuple[int, ...]
    distinct: int | None = None
    """Distinct values of a one-dimensional integer array, up to 100,000."""
    counts: dict[str, int] | None = None
    """Rows per value of such an array, at most 1,000 values."""


class ArrayFacts(Facts):
    kind: Literal["arrays"] = "arrays"
    files: dict[str, ArrayFile]


class WeightFacts(Facts):
    """Weights that other programs made, to start from; no run learns from them."""

    kind: Literal["weights"] = "weights"
    tensors: int
    parameters: int
    """Numbers in all of them."""
    config: dict[str, Any] | None = None
    """config.json of a Hugging Face directory, without its names of classes (`Any`: JSON); null where there is none."""
    vocabulary: int | None = None
    """Tokens of the tokenizer.json beside them, the largest id and one; null where there is none that can be read."""
    mask_id: int | None = None
    """Its token that hides others, where it has one."""
    pad_id: int | None = None
    """Its token that fills up short texts, where it has one."""


class DatasetFacts(Facts):
    """One version of a data set."""

    name: str
    version: int
    digest: str
    """SHA-256 of the manifest: the identity of the content."""
    bytes: int
    content: TableFacts | TextFacts | ImageFacts | ArrayFacts | WeightFacts
