"""A model of which every rank has a part, written as one file that anybody can use, one tensor at a time."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import torch
import torch.distributed as dist

from worker.trainer.checkpoint.boxes import Box, Held, lay_out, local
from worker.trainer.runtime.world import World
from worker.trainer.staging.sheet import DTYPES, header, in_order, raw


def collect(world: World, model: Mapping[str, torch.Tensor], target: Path) -> tuple[bool, OSError | None]:
    """Every rank calls it; rank 0 writes. Whether there was anything to collect: not where rank 0 has all of the model anyway.

    Rank 0 never holds more than one whole tensor beside its own part. The error is that of rank 0's disk, known to it alone.
    """
    layout = lay_out(world, {"model": model}, None)
    tensors: dict[str, Held] = {one.name: one for ones in layout.everybody for one in ones}
    if "model" in layout.whole or not tensors:
        return False, None
    boxes: dict[str, list[tuple[Box, int]]] = {}
    for (_, name, box), rank in layout.writers.items():
        boxes.setdefault(name, []).append((box, rank))
    lines = in_order((n, t.dtype, t.shape, math.prod(t.shape) * DTYPES[t.dtype].itemsize) for n, t in tensors.items())
    sink = _Sink(target if world.is_lead else None)
    sink.write(header(lines))
    for name, code, shape, _ in lines:
        whole = _gathered(world, model.get(name), tuple(shape), DTYPES[code], boxes[name])
        if whole is not None:
            sink.write(raw(whole))
    return True, sink.close()


class _Sink:
    """A file that remembers its trouble: the other ranks go on sending, and must be listened to until the end."""

    def __init__(self, target: Path | None) -> None:
        self._trouble: OSError | None = None
        self._file: BinaryIO | None = None
        if target is not None:
            self._try(lambda: self._open(target))

    def write(self, data: bytes | memoryview) -> None:
        if (file := self._file) is not None and self._trouble is None:
            self._try(lambda: file.write(data))

    def close(self) -> OSError | None:
        if (file := self._file) is not None:
            self._try(file.close)
        return self._trouble

    def _open(self, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self._file = target.open("wb")

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except OSError as error:
            self._trouble = self._trouble or error


def _gathered(
    world: World, mine: torch.Tensor | None, shape: tuple[int, ...], dtype: torch.dtype, boxes: list[tuple[Box, int]]
) -> torch.Tensor | None:
    """The whole tensor in rank 0's host memory, None elsewhere."""
    whole = torch.empty(shape, dtype=dtype) if world.is_lead else None
    for box, rank in sorted(boxes, key=lambda one: one[0]):
        place = tuple(slice(o, o + n) for o, n in zip(box.offset, box.shape, strict=True))
        size = math.prod(box.shape) * dtype.itemsize
        if rank == 0 and whole is not None:
            assert mine is not None
            whole[place] = local(mine).reshape(box.shape).cpu()
        elif whole is not None and size:
            bytes_ = torch.empty(size, dtype=torch.uint8, device=world.device)
            dist.recv(bytes_, src=rank)
            whole[place] = bytes_.cpu().view(dtype).reshape(box.shape)
        elif rank == world.rank and size:
            assert mine is not None
            dist.send(local(mine).contiguous().reshape(-1).view(torch.uint8).to(world.device), dst=0)
    return whole
