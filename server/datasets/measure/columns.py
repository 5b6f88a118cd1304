"""What is known of a table's column while its values pass by, batch after batch."""

from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from stoker.facts import ColumnFacts

MAX_DISTINCT = 100_000
MAX_COUNTED = 1_000

Kind = Literal["integer", "number", "boolean", "string", "other"]


class Tally:
    """Rows per value, given up beyond MAX_DISTINCT values."""

    def __init__(self) -> None:
        self.rows: dict[object, int] | None = {}
        self.nulls = 0

    def add(self, values: pa.Array) -> None:
        self.nulls += values.null_count
        if self.rows is None:
            return
        counted = pc.value_counts(values.drop_null())
        if len(counted) > MAX_DISTINCT:
            self.rows = None
            return
        for value, count in zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True):
            self.rows[value] = self.rows.get(value, 0) + count
        if len(self.rows) > MAX_DISTINCT:
            self.rows = None

    def facts(self, name: str, kind: Kind) -> ColumnFacts:
        if self.rows is None or kind == "other":
            return ColumnFacts(name=name, kind=kind, nulls=self.nulls)
        merged: dict[str, int] = {}
        for value, count in self.rows.items():
            text = _text(value, kind)
            merged[text] = merged.get(text, 0) + count
        counts = dict(sorted(merged.items())) if len(merged) <= MAX_COUNTED else None
        return ColumnFacts(name=name, kind=kind, nulls=self.nulls, distinct=len(merged), counts=counts)


class TextColumn:
    """A column that arrives as text, as in CSV: its kind is the narrowest that fits every value."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._tally = Tally()
        self._fits: dict[Kind, pa.DataType] = {"integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}
        self._seen = False

    def add(self, values: pa.Array) -> None:
        self._tally.add(values)
        present = values.drop_null()
        if not len(present):
            return
        self._seen = True
        trimmed = pc.utf8_trim_whitespace(present)
        for kind, datatype in list(self._fits.items()):
            try:
                pc.cast(trimmed, datatype)
            except pa.ArrowInvalid:
                del self._fits[kind]

    def facts(self) -> ColumnFacts:
        kind: Kind = next(iter(self._fits), "string") if self._seen else "other"
        return self._tally.facts(self.name, kind)


class TypedColumn:
    """A column whose type the file declares, as in Parquet."""

    def __init__(self, name: str, datatype: pa.DataType) -> None:
        self.name = name
        self.kind = kind_of(datatype)
        self._tally = Tally()

    def add(self, values: pa.Array) -> None:
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        self._tally.add(values)

    def facts(self) -> ColumnFacts:
        return self._tally.facts(self.name, self.kind)


def kind_of(datatype: pa.DataType) -> Kind:
    """The kind of a declared type; dates, decimals and nested values are other."""
    if pa.types.is_dictionary(datatype):
        return kind_of(datatype.value_type)
    if pa.types.is_boolean(datatype):
        return "boolean"
    if pa.types.is_integer(datatype):
        return "integer"
    if pa.types.is_floating(datatype):
        return "number"
    if pa.types.is_string(datatype) or pa.types.is_large_string(datatype) or pa.types.is_string_view(datatype):
        return "string"
    return "other"


def _text(value: object, kind: Kind) -> str:
    """The value as every reader of the table would write it: 01 and 1 are one integer, TRUE and true one boolean."""
    match kind:
        case "integer":
            return str(int(value))  # type: ignore[call-overload]
        case "number":
            return repr(float(value))  # type: ignore[arg-type]
        case "boolean":
            return str(value).strip().lower().replace("1", "true").replace("0", "false")
        case _:
            return str(value)
