"""CSV with a header row, read as text in blocks; several files are one table."""

import codecs
import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from server.datasets.measure.columns import TextColumn
from server.datasets.measure.reject import reject
from stoker.facts import TableFacts

MAX_COLUMNS = 4096
MAX_CELL = 1 << 20
_MAX_ROW = 16 << 20
_HEADER = 4 << 20
_DELIMITERS = (",", ";", "\t", "|")
_ROW = re.compile(r"[Rr]ow #?(\d+)")


def measure_csv(files: Sequence[tuple[str, Path]], delimiter: str | None) -> TableFacts:
    """Raises Rejected with the file and line of the first thing wrong."""
    first = _header(files[0], delimiter)
    delimiter, names = first
    columns = [TextColumn(name) for name in names]
    rows = 0
    for path, location in files:
        if check_text(path, location) % 2:
            _check_quotes(path, location, delimiter)
        if _header((path, location), delimiter)[1] != names:
            reject("The header differs from that of the first file.", path, 1)
        rows += _read(path, location, delimiter, columns)
    if not rows:
        reject("The table has no rows.", files[0][0], 2)
    return TableFacts(format="csv", rows=rows, columns=tuple(c.facts() for c in columns), delimiter=delimiter)


def check_text(path: str, location: Path) -> int:
    """How many quotes the file has. Raises Rejected with the line unless it is UTF-8 without NUL."""
    decoder, line, quotes = codecs.getincrementaldecoder("utf-8")(), 1, 0
    with location.open("rb") as file:
        while True:
            chunk = file.read(1 << 20)
            nul = chunk.find(b"\0")
            try:
                decoder.decode(chunk if nul < 0 else chunk[:nul], final=not chunk)
            except UnicodeDecodeError as error:
                reject("The file is not UTF-8.", path, line + chunk.count(b"\n", 0, max(0, error.start)))
            if nul >= 0:
                reject("The file holds a NUL byte.", path, line + chunk.count(b"\n", 0, nul))
            if not chunk:
                return quotes
            line += chunk.count(b"\n")
            quotes += chunk.count(b'"')


def _check_quotes(path: str, location: Path, delimiter: str) -> None:
    """An odd number of quotes: one is never closed, or stands inside a cell, where it means itself."""
    with location.open(encoding="utf-8", newline="") as file:
        reader, begin = csv.reader(file, delimiter=delimiter, strict=True), 1
        try:
            for _ in reader:
                begin = reader.line_num + 1
        except csv.Error as error:
            if "unexpected end" in str(error):
                reject("A quote is never closed.", path, begin)


def _header(file: tuple[str, Path], delimiter: str | None) -> tuple[str, list[str]]:
    path, location = file
    with location.open("rb") as stream:
        head = stream.read(_HEADER)
    if not head.strip():
        reject("The file is empty.", path, 1)
    text = head.decode("utf-8-sig", "replace")
    line = re.match(r"[^\r\n]*", text)
    first = line.group() if line else ""
    if len(first.encode()) >= _HEADER - 4:
        reject(f"The header row is longer than {_HEADER >> 20} MiB.", path, 1)
    chosen = delimiter or max(_DELIMITERS, key=first.count)
    csv.field_size_limit(MAX_CELL)
    try:
        names = next(csv.reader(io.StringIO(first), delimiter=chosen, strict=True))
    except csv.Error:
        reject("The header row does not parse.", path, 1)
    _check_names(names, path)
    return chosen, names


def _check_names(names: list[str], path: str) -> None:
    if len(names) > MAX_COLUMNS:
        reject(f"The table has more than {MAX_COLUMNS} columns.", path, 1)
    if len(set(names)) < len(names):
        reject("Two columns have the same name.", path, 1)
    if any(not 1 <= len(name) <= 256 or not name.isprintable() for name in names):
        reject("A column name is empty, longer than 256 characters or not printable.", path, 1)


def _read(path: str, location: Path, delimiter: str, columns: Sequence[TextColumn]) -> int:
    """Add the file's rows to the columns; returns how many there are."""
    names, rows = [c.name for c in columns], 0
    try:
        with pacsv.open_csv(
            location,
            read_options=pacsv.ReadOptions(use_threads=False, block_size=_MAX_ROW, column_names=names, skip_rows=1),
            parse_options=pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(
                column_types={name: pa.string() for name in names}, strings_can_be_null=True, quoted_strings_can_be_null=False
            ),
        ) as reader:
            for batch in reader:
                for column, values in zip(columns, batch.columns, strict=True):
                    _check_cells(values, path, rows)
                    column.add(values)
                rows += batch.num_rows
    except (pa.ArrowInvalid, pa.ArrowException) as error:
        _reject_parse(str(error), path)
    return rows


def _check_cells(values: pa.Array, path: str, before: int) -> None:
    lengths = pc.binary_length(values)
    if (pc.max(lengths).as_py() or 0) > MAX_CELL:
        row = pc.index(pc.greater(pc.fill_null(lengths, 0), MAX_CELL), True).as_py()
        reject(f"A cell is longer than {MAX_CELL >> 20} MiB.", path, before + row + 2)


def _reject_parse(message: str, path: str) -> None:
    found = _ROW.search(message)
    line = int(found.group(1)) if found else None
    if "straddling" in message:
        reject(f"A row is longer than {_MAX_ROW >> 20} MiB, or a quote is never closed.", path, line)
    if "Expected" in message:
        reject("A row has more or fewer cells than the header.", path, line)
    reject("The table does not parse.", path, line)
