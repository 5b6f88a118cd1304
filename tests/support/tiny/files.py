"""Data sets of a few samples, by name: what tiny jobs learn from, and the weights that some begin with."""

import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tokenizers
from PIL import Image
from safetensors.numpy import save

from server.datasets.measure.__main__ import measure
from stoker.facts import DatasetFacts
from tests.support.directories import gpt2_directory

ROWS = 60
CLASSES = np.arange(ROWS) % 3
WORDS = "all work and no play makes jack a dull boy. " * 40


def _values() -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(0).standard_normal((ROWS, 3))


def _lines(separator: str, *lines: object) -> bytes:
    return "".join(separator.join(map(str, line if isinstance(line, list) else [line])) + "\n" for line in lines).encode()


def _rows() -> dict[str, bytes]:
    """Three numbers and a class, with another delimiter."""
    rows = [[*row, y] for row, y in zip(_values(), CLASSES, strict=True)]
    return {"rows.csv": _lines(";", ["a", "b", "c", "y"], *rows)}


def _labels() -> dict[str, bytes]:
    """The same with a label that is there or not, and what each sample weighs."""
    rows = [[*row, y, i % 2, y] for i, (row, y) in enumerate(zip(_values(), CLASSES, strict=True))]
    return {"labels.csv": _lines(",", ["a", "b", "c", "y", "even", "weight"], *rows)}


def _reviews() -> dict[str, bytes]:
    return {"reviews.csv": _lines(",", ["review", "y"], *([f"word {i} and on", y] for i, y in enumerate(CLASSES)))}


def _numbers() -> dict[str, bytes]:
    out = io.BytesIO()
    pq.write_table(pa.table(dict(zip("abc", _values().T, strict=True))), out)
    return {"rows.parquet": out.getvalue()}


def _pictures() -> dict[str, bytes]:
    random, files = np.random.default_rng(0), {}
    for i in range(ROWS):
        out = io.BytesIO()
        Image.fromarray(random.integers(0, 255, (8, 8), np.uint8)).save(out, "png")
        files[f"{'cat' if i % 2 else 'dog'}/{i}.png"] = out.getvalue()
    return files


def _npy(values: np.ndarray[Any, Any]) -> bytes:
    out = io.BytesIO()
    np.save(out, values)
    return out.getvalue()


def _arrays(*shape: int) -> dict[str, bytes]:
    values = np.random.default_rng(0).standard_normal((ROWS, *shape), np.float32)
    return {"x.npy": _npy(values), "y.npy": _npy(CLASSES)}


def _tokens() -> bytes:
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "word": 1, "on": 2}, "[UNK]"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return inner.to_str().encode()


FILES: dict[str, Callable[[], dict[str, bytes]]] = {
    "rows": _rows,
    "labels": _labels,
    "reviews": _reviews,
    "numbers": _numbers,
    "words": lambda: {"words.txt": WORDS.encode()},
    "pictures": _pictures,
    "sequences": lambda: _arrays(6, 4),
    "grids": lambda: _arrays(2, 12, 12),
    "directory": gpt2_directory,
    "published": lambda: {"model.safetensors": save({"0.weight": np.ones((4, 3), np.float32)}), "tokenizer.json": _tokens()},
    "weights": lambda: {"model.safetensors": save({"0.weight": np.ones((4, 3), np.float32)})},
}
"""Files by path, of each data set. A job names its version: `rows@1`."""


def write(name: str, folder: Path) -> list[tuple[str, Path]]:
    """The files of a data set in a folder: path and place of each."""
    found = []
    for path, content in FILES[name]().items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        found.append((path, place))
    return sorted(found)


def facts(name: str) -> DatasetFacts:
    """What the server says of a data set when it is uploaded."""
    with tempfile.TemporaryDirectory() as folder:
        content = measure(write(name, Path(folder)), None, ";" if name == "rows" else None)
    return DatasetFacts.model_validate({"name": name, "version": 1, "digest": "0" * 64, "bytes": 1, "content": content})
