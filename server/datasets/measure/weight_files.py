"""Safetensors files: headers are read, weights are not."""

import json
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

from server.datasets.measure.model_files import check_index, config_in, tokens_in
from server.datasets.measure.reject import reject
from stoker.facts import WeightFacts

_MAX_HEADER = 100_000_000
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}

BESIDE = (".json", ".txt", ".md", ".model", ".jinja")
PAPERS = ("LICENSE", "NOTICE")


def is_weights(files: Sequence[tuple[str, Path]]) -> bool:
    """By their names: safetensors has no magic, and what is in them is looked at below."""
    return any(path.endswith(".safetensors") for path, _ in files)


def measure_weights(files: Sequence[tuple[str, Path]]) -> WeightFacts:
    """One or several files of weights, and the JSON and text files that models come with. Raises Rejected."""
    tensors = parameters = 0
    for path, location in files:
        if path.endswith(".safetensors"):
            shapes = _shapes(path, location)
            tensors, parameters = tensors + len(shapes), parameters + sum(map(prod, shapes))
        elif path not in PAPERS and not path.endswith(BESIDE):
            named = ", ".join(BESIDE)
            reject(f"A data set of weights may hold .safetensors and {named} files; leave this one out of the folder.", path)
    check_index(files)
    return WeightFacts(tensors=tensors, parameters=parameters, config=config_in(files), **tokens_in(files))


def _shapes(path: str, location: Path) -> list[tuple[int, ...]]:
    size = location.stat().st_size
    with location.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(_MAX_HEADER, size - 8):
            reject("This is not a complete safetensors file; upload it again.", path)
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            reject("The header of the safetensors file does not parse.", path)
    if not isinstance(header, dict):
        reject("The header of the safetensors file does not parse.", path)
    header.pop("__metadata__", None)
    end = 0
    shapes: list[tuple[int, ...]] = []
    for name, entry in sorted(header.items(), key=lambda one: _start(one[1])):
        shape, begin, stop = _entry(path, entry)
        if begin != end or stop - begin != prod(shape) * _BYTES[entry["dtype"]]:
            reject(f"The tensor {name[:200]!r} has another place than its shape says.", path)
        end, shapes = stop, [*shapes, shape]
    if end != size - 8 - length or not shapes:
        reject("The file is longer or shorter than its header says.", path)
    return shapes


def _start(entry: Any) -> int:
    """To sort by; what is no entry comes first, and is refused."""
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    first = offsets[0] if isinstance(offsets, list) and offsets else None
    return first if type(first) is int else -1


def _entry(path: str, entry: Any) -> tuple[tuple[int, ...], int, int]:
    """Anything may stand in a file, hence `Any`."""
    found = entry if isinstance(entry, dict) else {}
    shape, offsets = found.get("shape"), found.get("data_offsets")
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2 or len(shape) > 8:
        reject("The header of the safetensors file names no shape or place.", path)
    if any(type(n) is not int or not 0 <= n < 2**48 for n in (*shape, *offsets)):
        reject("The header of the safetensors file names an impossible shape or place.", path)
    if not isinstance(found.get("dtype"), str) or found["dtype"] not in _BYTES:
        reject(f"The safetensors file holds numbers of another kind than {', '.join(_BYTES)}.", path)
    return tuple(shape), offsets[0], offsets[1]
