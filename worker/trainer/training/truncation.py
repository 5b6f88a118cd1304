"""Truncation specs into passes: a long sequence is learned window by window, its memory carried on and its history cut."""

from collections.abc import Generator, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from stoker.spec.derived.arithmetic import time_windows
from stoker.spec.training.truncation import TBPTT
from worker.trainer.data.loader import Micro
from worker.trainer.errors import SpecProblem
from worker.trainer.model.recurrent import Course, Recurrent, State
from worker.trainer.runtime.part import Part
from worker.trainer.runtime.world import World
from worker.trainer.training.passes import Pass, Portions, whole


class Truncated:
    """Micro-batches in windows of time. Between optimizer steps it remembers where each stream is, if it is to."""

    def __init__(self, spec: TBPTT, model: Recurrent, *, batch_size: int, per_epoch: int, world: World) -> None:
        self._steps, self._stride, self._stateful = spec.steps, spec.stride or spec.steps, spec.stateful
        self._model, self._batch_size, self._per_epoch, self._world = model, batch_size, per_epoch, world
        self._seen = 0
        """Optimizer steps so far."""
        self._memory: State = None
        """Of this rank's part of the batch, all micro-batches in order; None at the start of an epoch."""

    def __call__(self, micros: tuple[Micro, ...]) -> Generator[Pass, None, None]:
        begins = self._seen % self._per_epoch == 0 or not self._stateful
        memory, left, at = None if begins else self._memory, [], 0
        try:
            for micro in micros:
                count = len(micro[0])
                yield from self._windows(micro, _rows(memory, at, at + count), micro is micros[-1])
                if count and self._model.course is not None:
                    left.append(self._model.course.noted)
                at += count
        finally:
            self._model.course = None
        self._seen += 1
        self._memory = _joined(left) if self._stateful else None

    def _windows(self, micro: Micro, state: State, last: bool) -> Iterator[Pass]:
        inputs, targets = micro
        if self._model.tokens is None or not len(inputs):
            length = inputs.shape[1] if len(inputs) else 0
            self._model.course = Course(state, note=length, blind=max(0, length - self._steps))
            yield Pass(inputs, targets, last)
            return
        windows = list(time_windows(inputs.shape[1], self._steps, self._stride))
        for window, after in zip(windows, [*windows[1:], None], strict=True):
            begin, end = window.start, window.stop
            note = (end if after is None else after.start) - begin
            course = self._model.course = Course(state, note=note, counted=window.counted)
            yield Pass(inputs[:, begin:end], targets[:, end - window.counted : end], last and after is None)
            state = course.noted if note else state

    def tensors(self) -> dict[str, torch.Tensor]:
        """The streams of all ranks, in the order of the batch: (layers x directions, batch, units) each."""
        whole_batch = (self._world.gather(part) for part in self._memory or ())
        return {f"memory{i}": part.movedim(0, 1).flatten(1, 2).contiguous() for i, part in enumerate(whole_batch)}

    def values(self) -> dict[str, Any]:
        return {"seen": self._seen}

    def load(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        self._seen = int(values.get("seen", 0))
        index, parts = self._world.data_index, self._world.data_parts
        first, end = self._batch_size * index // parts, self._batch_size * (index + 1) // parts
        found = tuple(tensors[name][:, first:end].clone().to(self._world.device) for name in sorted(tensors))
        self._memory = found or None


def _rows(memory: State, start: int, stop: int) -> State:
    return None if memory is None else tuple(part[:, start:stop].contiguous() for part in memory)


def _joined(parts: list[State]) -> State:
    known = [part for part in parts if part is not None]
    return tuple(torch.cat(same, 1) for same in zip(*known, strict=True)) if known else None


def build_portions(
    spec: TBPTT | None, model: nn.Module, *, batch_size: int, per_epoch: int, world: World
) -> tuple[Portions, Part]:
    """How micro-batches become passes, and what of it the checkpoint keeps. Raises SpecProblem for a model without memory."""
    if spec is None:
        return whole, Part()
    if not isinstance(model, Recurrent) or model.bidirectional:
        raise SpecProblem("training.tbptt: only a recurrent model that reads forwards has a memory to cut; remove it")
    if world.data_parts != world.size:
        raise SpecProblem("training.tbptt: each rank must hold a whole model; use another distributed.strategy")
    truncated = Truncated(spec, model, batch_size=batch_size, per_epoch=per_epoch, world=world)
    return truncated, Part({"truncation": truncated}) if spec.stateful else Part()
