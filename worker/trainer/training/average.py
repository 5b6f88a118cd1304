"""Averages of the weights over the steps of a run, to be judged and kept in their place."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from stoker.spec.base import Duration
from stoker.spec.derived.arithmetic import in_steps
from stoker.spec.training.average import EMA, SWA
from worker.trainer.errors import SpecProblem
from worker.trainer.runtime.compat import AnyBatchNorm
from worker.trainer.runtime.part import Part
from worker.trainer.runtime.shards import local, placed


class Average(Protocol):
    def __call__(self, step: int) -> None:
        """After the optimizer step with this number, from 0."""

    def used(self) -> AbstractContextManager[object]:
        """The model holds the average within, and its own weights again after it."""

    def end(self, *, restored: bool) -> None:
        """No step follows. The average takes the model's place for good, unless other weights were restored into the model."""


class NoAverage:
    def __call__(self, step: int) -> None:
        return

    def used(self) -> AbstractContextManager[object]:
        return nullcontext()

    def end(self, *, restored: bool) -> None:
        return


@dataclass(frozen=True)
class InTurn:
    """Several, one after the other: ranks first agree on their weights, then the result is averaged over steps."""

    averages: tuple[Average, ...]

    def __call__(self, step: int) -> None:
        for average in self.averages:
            average(step)

    @contextmanager
    def used(self) -> Iterator[None]:
        with ExitStack() as stack:
            for average in self.averages:
                stack.enter_context(average.used())
            yield

    def end(self, *, restored: bool) -> None:
        for average in self.averages:
            average.end(restored=restored)


@dataclass(frozen=True)
class Moments:
    """When weights are taken into the average."""

    start: int
    """Steps made before the first."""
    every: int

    def due(self, made: int) -> bool:
        return made >= self.start and (made - self.start) % self.every == 0


class Averaged:
    """A running average of the weights, in fp32 where they are narrower.

    Between steps it changes places with the weights, tensor by tensor, so that judging it takes no third copy. In the checkpoint
    is whichever of the two the model does not hold: the average while the run goes on, the weights once it has ended.
    """

    def __init__(
        self,
        model: nn.Module,
        moments: Moments,
        share: Callable[[int], float],
        statistics: Callable[[], None] | None = None,
        within: str = "",
    ) -> None:
        """`share`: of the weights in update n, from 1. `statistics`: computes those of BatchNorm for what the model holds.
        `within`: what the names of the weights begin with that are averaged.
        """
        self._params = {n: p for n, p in model.named_parameters() if p.requires_grad and n.startswith(within)}
        norms = [f"{n}." for n, module in model.named_modules() if isinstance(module, AnyBatchNorm) and n.startswith(within)]
        self._buffers = {n: b for n, b in model.named_buffers() if statistics is not None and n.startswith(tuple(norms))}
        self._moments, self._share, self._statistics = moments, share, statistics
        self._kept: dict[str, torch.Tensor] = {}
        """By name, what the model does not hold."""
        self.count = 0
        """Weights in the average."""
        self._computed = 0
        """How many there were when the statistics of BatchNorm were computed."""
        self._inside = False
        """Whether the model holds the average for good."""

    @torch.no_grad()
    def __call__(self, step: int) -> None:
        if not self._moments.due(step + 1):
            return
        if self.count == 0:
            self._kept = {name: _wide(param.detach()).clone() for name, param in self._params.items()}
        else:
            mine = [local(self._kept[name]) for name in self._params]
            torch._foreach_lerp_(mine, [local(_wide(p.detach())) for p in self._params.values()], self._share(self.count))
        self.count += 1

    @contextmanager
    def used(self) -> Iterator[None]:
        if self.count == 0 or self._inside:
            yield
            return
        held = self._exchange()
        try:
            yield
        finally:
            self._take_back(held)

    def end(self, *, restored: bool) -> None:
        if restored:
            self._kept, self.count, self._computed = {}, 0, 0
        elif self.count and not self._inside:
            self._kept |= {name: _wide(value) for name, value in self._exchange().items()}
            self._inside = True

    @torch.no_grad()
    def _exchange(self) -> dict[str, torch.Tensor]:
        """Put the average into the model; the weights that it has in another format, which do not fit in the average's place."""
        narrow: dict[str, torch.Tensor] = {}
        for name, param in self._params.items():
            kept = self._kept[name]
            if kept.dtype == param.dtype:
                _swap(local(param.detach()), local(kept))
            else:
                narrow[name] = param.detach().clone()
                local(param.detach()).copy_(local(kept))
        if self._statistics is not None and self._buffers:
            self._renew(self._statistics)
        return narrow

    def _renew(self, statistics: Callable[[], None]) -> None:
        """The statistics of the average, computed when they are first needed."""
        if self._computed == self.count:
            for name, buffer in self._buffers.items():
                _swap(buffer, self._kept[name])
            return
        self._kept |= {name: buffer.clone() for name, buffer in self._buffers.items()}
        statistics()
        self._computed = self.count

    @torch.no_grad()
    def _take_back(self, narrow: Mapping[str, torch.Tensor]) -> None:
        for name, param in self._params.items():
            if name in narrow:
                local(param.detach()).copy_(local(narrow[name]))
            else:
                _swap(local(param.detach()), local(self._kept[name]))
        for name, buffer in self._buffers.items():
            _swap(buffer, self._kept[name])

    def tensors(self) -> dict[str, torch.Tensor]:
        return dict(self._kept)

    def values(self) -> dict[str, Any]:
        return {"count": self.count, "computed": self._computed, "inside": self._inside}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        """A run that had ended goes on with the weights that it would have gone on with."""
        here = {**self._params, **self._buffers}
        self._kept = {
            name: value if type(value) is type(here[name].data) else placed(value, here[name].detach())
            for name, value in tensors.items()
            if name in here
        }
        self.count, self._computed = values.get("count", 0), values.get("computed", 0)
        self._inside = False
        if values.get("inside"):
            for name, kept in self._kept.items():
                value = _wide(here[name].detach()).clone() if name in self._params else here[name].clone()
                local(here[name].detach()).copy_(local(kept))
                self._kept[name] = value


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """In 16 bits, small shares of a weight would be rounded away."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def _swap(one: torch.Tensor, other: torch.Tensor) -> None:
    third = one.clone()
    one.copy_(other)
    other.copy_(third)


def build_average(
    ema: EMA | None,
    swa: SWA | None,
    model: nn.Module,
    *,
    steps: Callable[[Duration], int | None],
    statistics: Callable[[], None],
    within: str = "",
) -> tuple[Average, Part]:
    """The average, and what the checkpoint keeps of it. `statistics`: computes those of BatchNorm over the training
    split. `within`: what the names of the weights begin with that are averaged.
    """
    if swa is not None:
        made = Averaged(model, _moments_of_mean(swa, steps), lambda n: 1 / (n + 1), statistics, within)
    elif ema is not None:
        made = Averaged(model, Moments(_steps(ema.start, "ema.start", steps), ema.every), _share(ema), within=within)
    else:
        return NoAverage(), Part()
    return made, Part({"average": made})


def settled_rate(
    swa: SWA | None, rate: Callable[[int], float], steps: Callable[[Duration], int | None]
) -> Callable[[int], float]:
    """The learning rate by step, constant while weights are averaged where the spec says so."""
    if swa is None or (constant := swa.lr) is None:
        return rate
    start = _moments_of_mean(swa, steps).start
    return lambda step: rate(step) if step < start else constant


def _share(spec: EMA) -> Callable[[int], float]:
    if spec.warmup:
        return lambda n: 1 - min(spec.decay, (1 + n) / (10 + n))
    return lambda n: 1 - spec.decay


def _moments_of_mean(spec: SWA, steps: Callable[[Duration], int | None]) -> Moments:
    return Moments(_steps(spec.start, "swa.start", steps), _steps(spec.every, "swa.every", steps))


def _steps(length: Duration | None, field: str, steps: Callable[[Duration], int | None]) -> int:
    """At least one."""
    count = 1 if length is None else steps(length)
    if count is None:
        raise SpecProblem(f"training.{field}: set it in steps, epochs or tokens")
    return count


def in_run(per_epoch: int, tokens_per_step: int) -> Callable[[Duration], int | None]:
    """Durations as steps of one run."""
    return lambda length: in_steps(length, per_epoch, tokens_per_step)
