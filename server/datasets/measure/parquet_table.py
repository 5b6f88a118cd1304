"""Apache Parquet, one column at a time in batches; several files are one table."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from server.datasets.measure.columns import TypedColumn
from server.datasets.measure.csv_table import MAX_CELL, MAX_COLUMNS
from server.datasets.measure.reject import reject
from stoker.facts import TableFacts

_MAX_ROWS = 10**10
_BATCH = 65_536


def measure_parquet(files: Sequence[tuple[str, Path]]) -> TableFacts:
    """Raises Rejected with the file that is damaged, differs from the first or is beyond a limit."""
    schema: pa.Schema | None = None
    columns: list[TypedColumn] = []
    rows = 0
    for path, location in files:
        try:
            with pq.ParquetFile(location, memory_map=False, pre_buffer=False) as table:
                found = _checked_schema(table, path)
                if schema is None:
                    schema = found
                    columns = [TypedColumn(field.name, field.type) for field in schema]
                elif not found.equals(schema, check_metadata=False):
                    reject("The columns differ from those of the first file.", path)
                rows += _read(table, columns, path)
        except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError):
            reject("The file is not a whole, readable Parquet table.", path)
    if not rows:
        reject("The table has no rows.", files[0][0])
    return TableFacts(format="parquet", rows=rows, columns=tuple(c.facts() for c in columns))


def _checked_schema(table: pq.ParquetFile, path: str) -> pa.Schema:
    metadata = table.metadata
    if metadata.num_columns > MAX_COLUMNS:
        reject(f"The table has more than {MAX_COLUMNS} columns.", path)
    if not 0 <= metadata.num_rows <= _MAX_ROWS:
        reject(f"The file claims more than {_MAX_ROWS} rows.", path)
    schema = table.schema_arrow
    names = schema.names
    if not names or len(set(names)) < len(names):
        reject("The table has no columns, or two of the same name.", path)
    if any(not 1 <= len(name) <= 256 or not name.isprintable() for name in names):
        reject("A column name is empty, longer than 256 characters or not printable.", path)
    if any(isinstance(field.type, pa.BaseExtensionType) for field in schema):
        reject("A column has an extension type.", path)
    return schema


def _read(table: pq.ParquetFile, columns: Sequence[TypedColumn], path: str) -> int:
    for column in columns:
        seen = 0
        for batch in table.iter_batches(batch_size=_BATCH, columns=[column.name], use_threads=False):
            values = batch.column(0)
            seen += len(values)
            if column.kind == "string" and (pc.max(pc.binary_length(_plain(values))).as_py() or 0) > MAX_CELL:
                reject(f"A cell is longer than {MAX_CELL >> 20} MiB.", path)
            if column.kind != "other":
                column.add(values)
        if seen != table.metadata.num_rows:
            reject("The file has fewer rows than it claims.", path)
    return int(table.metadata.num_rows)


def _plain(values: pa.Array) -> pa.Array:
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
