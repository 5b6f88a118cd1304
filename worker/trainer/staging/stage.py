"""Where a save is put before it is written: nowhere, in a forked child, or in a copy."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, assert_never

import torch

from stoker.spec.checkpoint import Checkpoint
from worker.trainer.staging.copied import Copied, Copies, Tensors
from worker.trainer.staging.forked import Forked
from worker.trainer.staging.job import Entry, Job
from worker.trainer.staging.room import room
from worker.trainer.staging.sheet import Sheet
from worker.trainer.staging.task import Done, Task

MARGIN = 1.1
"""How much more memory than the tensors take must be free for a background save."""


Mode = Literal["off", "fork", "copy"]


@dataclass
class Staging:
    """How this rank's saves are written, and the one that is under way."""

    mode: Mode
    room: Callable[[], int] = room
    """Free memory in bytes, asked before each background save."""
    flight: object | None = None
    """The save under way; `worker.trainer.checkpoint.save` knows what it is."""
    moved: int = -1
    """The step whose update of the weights was begun last, where somebody asks."""
    failed: bool = False
    """The last background save failed: the next one is made while the run waits, so that its trouble is the run's."""
    layout: Any = None
    """Who writes what, as agreed at the last save; `worker.trainer.checkpoint.boxes` knows what it is."""
    copies: Copies = field(default_factory=Copies)
    may_take_later: bool = False
    """Whether somebody waits for the task's `taken` before each update, and nothing else changes weights between saves."""

    @property
    def waits(self) -> bool:
        """Whether the run stands still while it is saved, the same on every rank."""
        return self.failed or self.mode == "off"

    def begin(
        self,
        into: Path,
        tensors: Tensors,
        texts: Mapping[str, bytes],
        present: Sequence[str],
        *,
        wait: bool,
        later: Set[int] = frozenset(),
    ) -> Task:
        """Start to write; with `wait`, write. OSErrors are the task's.

        `later`: addresses of the storages that do not change before the task's `taken` was waited for; others may as soon as
        this returns.
        """
        if not (tensors or texts or present):  # whatever this rank has, another one writes
            return Done(list)
        kind = "off" if wait else self.mode
        if kind != "off" and _bytes(tensors) * MARGIN > self.room():
            kind = "off"
        match kind:
            case "off":
                return Done(_job(into, tensors, texts, present).run)
            case "fork":
                try:
                    return Forked(_job(into, tensors, texts, present))
                except OSError:  # no room for another process
                    return Done(_job(into, tensors, texts, present).run)
            case "copy":
                taking = self.copies.take(tensors, later)
                return Copied(_job(into, taking.tensors, texts, present), taking)
            case _:
                assert_never(kind)


def _job(into: Path, tensors: Tensors, texts: Mapping[str, bytes], present: Sequence[str]) -> Job:
    sheets = [Entry(file, Sheet.of(named)) for file, named in tensors.items()]
    return Job(into, [*sheets, *(Entry(name, text) for name, text in texts.items())], present)


def _bytes(tensors: Tensors) -> int:
    return sum(tensor.nbytes for named in tensors.values() for tensor in named.values())


def build_staging(spec: Checkpoint, device: torch.device) -> Staging:
    """Unset: a copy. A forked child cannot read a GPU's memory."""
    fork = spec.background == "fork" and device.type == "cpu"  # device: auto may have found a GPU
    return Staging("off" if spec.background == "off" else "fork" if fork else "copy")
