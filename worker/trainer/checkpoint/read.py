"""The tensors of a checkpoint directory, whole or the box that somebody needs, whoever wrote them."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

import torch

from worker.trainer.checkpoint.boxes import Box
from worker.trainer.checkpoint.places import INDEX
from worker.trainer.staging import TensorFile
from worker.trainer.staging.sheet import DTYPES

Piece = tuple[str, str, Box]
"""File, name in it, and which box of the tensor it is."""


class Stored:
    """Open for reading. Raises OSError, and ValueError or KeyError for what is no checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._shelves: dict[str, TensorFile] = {}
        self._index = json.loads((path / INDEX).read_bytes())["stores"] if (path / INDEX).exists() else {}

    def __enter__(self) -> "Stored":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for artifacts in self._shelves.values():
            artifacts.close()
        self._shelves.clear()

    def names(self, store: str) -> frozenset[str]:
        """Of all tensors of a store; none when it was not written."""
        return frozenset(self._shapes(store))

    def shape(self, store: str, name: str) -> tuple[int, ...]:
        return self._shapes(store)[name][0]

    def dtype(self, store: str, name: str) -> torch.dtype:
        return self._shapes(store)[name][1]

    def whole(self, store: str, name: str) -> torch.Tensor:
        """A tensor in host memory."""
        shape = self.shape(store, name)
        return self.box(store, name, Box((0,) * len(shape), shape))

    def box(self, store: str, name: str, wanted: Box) -> torch.Tensor:
        """Part of a tensor in host memory, read from wherever its pieces are and nothing else."""
        pieces = list(self._pieces(store, name))
        for file, key, box in pieces:
            if _within(wanted, box):
                offset = tuple(w - b for w, b in zip(wanted.offset, box.offset, strict=True))
                return self._shelf(file).read(key, offset, wanted.shape)
        made = torch.empty(wanted.shape, dtype=self.dtype(store, name))
        filled = 0
        for file, key, box in pieces:
            common = _common(wanted, box)
            if common is not None:
                source = tuple(c - b for c, b in zip(common.offset, box.offset, strict=True))
                target = tuple(
                    slice(c - w, c - w + n) for c, w, n in zip(common.offset, wanted.offset, common.shape, strict=True)
                )
                made[target] = self._shelf(file).read(key, source, common.shape)
                filled += math.prod(common.shape)
        if filled != made.numel():
            raise ValueError(f"{store} {name} has holes")
        return made

    def all(self, store: str) -> dict[str, torch.Tensor]:
        return {name: self.whole(store, name) for name in sorted(self.names(store))}

    def _shelf(self, file: str) -> TensorFile:
        if file not in self._shelves:
            if Path(file).name != file:
                raise ValueError(f"{file} does not belong to a checkpoint")
            self._shelves[file] = TensorFile(self.path / file)
        return self._shelves[file]

    def _shapes(self, store: str) -> Mapping[str, tuple[tuple[int, ...], torch.dtype]]:
        if store in self._index:
            return {name: (tuple(entry["shape"]), DTYPES[entry["dtype"]]) for name, entry in self._index[store].items()}
        file = f"{store}.safetensors"
        if not (self.path / file).exists():
            return {}
        return {name: (kept.shape, kept.dtype) for name, kept in self._shelf(file).tensors.items()}

    def _pieces(self, store: str, name: str) -> Iterator[Piece]:
        if store not in self._index:
            shape = self.shape(store, name)
            yield f"{store}.safetensors", name, Box((0,) * len(shape), shape)
            return
        for piece in self._index[store][name]["pieces"]:
            yield piece["file"], f"{store}/{name}", Box(tuple(piece["offset"]), tuple(piece["shape"]))


def _within(inner: Box, outer: Box) -> bool:
    return all(o <= i and i + n <= o + m for i, n, o, m in zip(inner.offset, inner.shape, outer.offset, outer.shape, strict=True))


def _common(one: Box, other: Box) -> Box | None:
    offset = tuple(max(a, b) for a, b in zip(one.offset, other.offset, strict=True))
    ends = [min(a + n, b + m) for a, n, b, m in zip(one.offset, one.shape, other.offset, other.shape, strict=True)]
    shape = tuple(end - start for start, end in zip(offset, ends, strict=True))
    return Box(offset, shape) if all(n > 0 for n in shape) else None
