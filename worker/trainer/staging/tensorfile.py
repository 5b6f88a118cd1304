"""Tensors read out of a file of the safetensors format, or only the box of one that somebody needs, into memory that is there."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from worker.trainer.staging.sheet import DTYPES

MAX_HEADER = 1 << 28


@dataclass(frozen=True)
class Kept:
    """One tensor of a file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    """Of its bytes in the file."""


class TensorFile:
    """One file, open for reading. Raises OSError, and ValueError for what is no such file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            length = int.from_bytes(os.pread(self._file, 8, 0), "little")
            if not 2 <= length <= MAX_HEADER:
                raise ValueError(f"{path.name} has no header")
            self.tensors = _tensors(json.loads(os.pread(self._file, length, 8)), 8 + length)
        except (ValueError, KeyError, TypeError) as error:
            self.close()
            raise ValueError(f"{path.name} is not a complete safetensors file: {error}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> "TensorFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, name: str, offset: Sequence[int], shape: Sequence[int]) -> torch.Tensor:
        """The box of a tensor that begins at `offset` and has `shape`, in host memory of its own."""
        kept = self.tensors[name]
        box = torch.empty(tuple(shape), dtype=kept.dtype)
        if not box.numel():
            return box
        if not kept.shape or tuple(shape[1:]) == kept.shape[1:]:
            row = math.prod(kept.shape[1:]) * kept.dtype.itemsize
            self._fill(box, kept.start + (offset[0] * row if kept.shape else 0))
            return box
        for index in range(shape[0]):  # rows of it, so that no more than a row is read in vain
            line = torch.empty((1, *kept.shape[1:]), dtype=kept.dtype)
            self._fill(line, kept.start + (offset[0] + index) * line.nbytes)
            box[index] = line[0][tuple(slice(o, o + n) for o, n in zip(offset[1:], shape[1:], strict=True))]
        return box

    def _fill(self, tensor: torch.Tensor, at: int) -> None:
        view = tensor.reshape(-1).view(torch.uint8).numpy().data
        while view:
            got = os.preadv(self._file, [view[: 1 << 28]], at)
            if got == 0:
                raise ValueError(f"{self.path.name} ends too early")
            view, at = view[got:], at + got


def _tensors(entries: dict[str, dict[str, object]], base: int) -> dict[str, Kept]:
    found = {}
    for name, entry in entries.items():
        if name != "__metadata__":
            shape, (start, end) = tuple(map(int, entry["shape"])), map(int, entry["data_offsets"])  # type: ignore[call-overload]  # JSON; what is wrong raises TypeError
            dtype = DTYPES[str(entry["dtype"])]
            if end - start != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"{name} has another size than its shape")
            found[name] = Kept(dtype, shape, base + start)
    return found
