"""Tables into samples: csv and parquet files through Arrow."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from worker.trainer.errors import DataProblem


def read_csv(files: Sequence[Path], delimiter: str) -> pa.Table:
    """All files as one table. Raises DataProblem naming the file that cannot be read or has other columns."""
    options = pacsv.ParseOptions(delimiter=delimiter)
    return _joined(files, lambda path: pacsv.read_csv(path, parse_options=options))


def read_parquet(files: Sequence[Path]) -> pa.Table:
    """All files as one table. Raises DataProblem naming the file that cannot be read or has other columns."""
    return _joined(files, pq.read_table)


def _joined(files: Sequence[Path], read: Callable[[Path], pa.Table]) -> pa.Table:
    tables = []
    for path in files:
        try:
            tables.append(read(path))
        except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
            raise DataProblem(f"{path.name}: cannot be read as a table: {error}") from error
        if tables[-1].column_names != tables[0].column_names:
            raise DataProblem(f"{path.name}: its columns differ from those of {files[0].name}; every file needs the same header")
    names = tables[0].column_names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataProblem(f"{files[0].name}: column {twice[0]!r} appears twice; rename one")
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise DataProblem(f"the files' columns have different types: {error}") from error


def features(
    table: pa.Table, columns: Sequence[str] | None, target: Sequence[str]
) -> tuple[tuple[str, ...], npt.NDArray[np.float32]]:
    """Names and values (rows, features) of the feature columns; unset, all but the target."""
    for name in target:
        _complete(table, name)
    names = tuple(columns) if columns is not None else tuple(n for n in table.column_names if n not in target)
    if not names:
        raise DataProblem("the table has no column beside the target; a model needs at least one feature")
    both = [name for name in names if name in target]
    if both:
        raise DataProblem(f"data.source.columns: {both[0]!r} is also task.target; the model would only copy it")
    return names, np.stack([numbers(table, name) for name in names], axis=1)


def numbers(table: pa.Table, name: str) -> npt.NDArray[np.float32]:
    """A column of finite numbers; booleans are 0 and 1."""
    column = _complete(table, name)
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_decimal(kind)):
        raise DataProblem(
            f"column {name!r} holds {kind}, not numbers; leave it out with data.source.columns or encode it as numbers"
        )
    values: npt.NDArray[np.float32] = column.cast(pa.float64()).to_numpy().astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise DataProblem(f"column {name!r} is not finite at row {bad[0] + 1} ({bad.size} such rows); clean or drop them")
    return values


def labels(table: pa.Table, name: str) -> npt.NDArray[np.generic]:
    """A column of classes: int64, or text."""
    column = _complete(table, name)
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return np.asarray(column.cast(pa.int64()).to_numpy())
    if pa.types.is_floating(kind):
        values = column.to_numpy()
        if not np.array_equal(values, np.round(values)):
            raise DataProblem(f"column {name!r} holds fractions, not classes; use task regression or another target")
        return np.asarray(values.astype(np.int64))
    return np.asarray(column.cast(pa.string()).to_pylist(), dtype=np.str_)


def strings(table: pa.Table, name: str) -> tuple[str, ...]:
    """A column of text."""
    column = _complete(table, name)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise DataProblem(f"column {name!r} holds {column.type}, not text; name another in data.source.text")
    return tuple(column.to_pylist())


def _complete(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise DataProblem(f"there is no column {name!r}; the table has {', '.join(table.column_names[:20])}")
    column = table.column(name)
    if column.null_count:
        row = next(i for i, value in enumerate(column) if not value.is_valid)
        raise DataProblem(f"column {name!r} is empty at row {row + 1} ({column.null_count} such rows); fill or drop them")
    if len(column) == 0:
        raise DataProblem(f"column {name!r} has no rows")
    return column
