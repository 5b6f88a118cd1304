"""NumPy arrays: headers are read, never unpickled; labels are counted."""

from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np

from server.datasets.measure.reject import forbid, reject
from stoker.facts import ArrayFacts, ArrayFile

_MAX_DISTINCT = 100_000
_MAX_COUNTED = 1_000
_STRIDE = 1 << 20


def measure_arrays(files: Sequence[tuple[str, Path]]) -> ArrayFacts:
    """Raises Rejected with the file that is damaged or holds objects."""
    return ArrayFacts(files={path: _measure(path, location) for path, location in files})


def _measure(path: str, location: Path) -> ArrayFile:
    shape, dtype, start = _header(path, location)
    if dtype.hasobject:
        forbid("The array holds Python objects, which are pickled.", path)
    if dtype.kind not in "biuf" or dtype.names is not None or dtype.subdtype is not None:
        reject("The array holds something else than numbers or booleans.", path)
    if not shape or len(shape) > 8 or prod(shape) == 0:
        reject("The array is empty, a single number, or has more than 8 axes.", path)
    if location.stat().st_size != start + prod(shape) * dtype.itemsize:
        reject("The file is longer or shorter than its header says.", path)
    if len(shape) == 1 and dtype.kind in "iub":
        return _labels(np.memmap(location, dtype, "r", start, shape))
    return ArrayFile(dtype=dtype.str, shape=shape)


def _header(path: str, location: Path) -> tuple[tuple[int, ...], "np.dtype[np.generic]", int]:
    with location.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file, max_header_size=10_000)
        except Exception:  # the header is parsed as Python literals: errors of every class
            reject("The header of the array does not parse.", path)
        if any(type(n) is not int or not 0 <= n < 2**48 for n in shape):
            reject("The header of the array names an impossible shape.", path)
        return shape, dtype, file.tell()


def _labels(values: "np.memmap[tuple[int, ...], np.dtype[np.generic]]") -> ArrayFile:
    rows: dict[int, int] = {}
    for at in range(0, len(values), _STRIDE):
        found, counts = np.unique(values[at : at + _STRIDE], return_counts=True)
        for value, count in zip(found.tolist(), counts.tolist(), strict=True):
            rows[int(value)] = rows.get(int(value), 0) + count
        if len(rows) > _MAX_DISTINCT:
            return ArrayFile(dtype=values.dtype.str, shape=values.shape)
    counted = {str(value): rows[value] for value in sorted(rows)} if len(rows) <= _MAX_COUNTED else None
    return ArrayFile(dtype=values.dtype.str, shape=values.shape, distinct=len(rows), counts=counted)
