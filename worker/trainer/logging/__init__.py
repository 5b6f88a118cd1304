"""Logging spec into what is measured between two reports."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

import torch

from stoker.spec import JobSpec
from stoker.spec.logging import AnySink, JsonLines, Logging, TensorBoard
from worker.trainer.logging import sinks
from worker.trainer.logging.sinks import Sink, Sinks
from worker.trainer.measure.figures import Figures, Performance, Timing
from worker.trainer.measure.stopwatch import NoWatch, Stopwatch, Watch
from worker.trainer.runtime.artifact import ArtifactWriter
from worker.trainer.runtime.journal import Journal
from worker.trainer.runtime.part import Part
from worker.trainer.runtime.rhythm import Pace, Rhythm
from worker.trainer.runtime.world import World


class Meter:
    """The mean training loss since the last report, summed on the device so that no step waits for a number."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.total = torch.zeros((), dtype=torch.float64, device=world.device)
        """Summed losses of this rank."""
        self.weight = 0.0
        """What they are divided by, of all ranks."""

    def add(self, loss: torch.Tensor, weight: float, *, made: bool) -> None:
        """One step: the summed loss of this rank's part, and what the losses of all parts are divided by. A step that was
        not made is left out.
        """
        if made:
            self.total += loss
            self.weight += weight

    def mean(self) -> float:
        """Over all ranks; waits for the device. NaN when there was no step."""
        return self._world.sum(self.total.clone()).item() / self.weight if self.weight else float("nan")

    def reset(self) -> None:
        self.total.zero_()
        self.weight = 0.0


@dataclass
class Log:
    """When training metrics are written, and which."""

    rhythm: Rhythm
    meter: Meter
    gauges: Mapping[str, Callable[[], torch.Tensor]]
    """Further values by key, read when they are written."""
    watch: Watch
    figures: Sequence[Figures]
    """What is made of the time between two reports."""

    def read(self, *, lr: float, steps: int, count: int) -> dict[str, float]:
        """Everything since the last report, which was `steps` steps and `count` samples or tokens ago; waits for the device."""
        values = {"train/loss": self.meter.mean()} if self.meter.weight else {}
        values["train/lr"] = lr
        self.meter.reset()
        for key, read in self.gauges.items():
            values[key] = read().item()
        for figures in self.figures:
            values |= figures.read(steps, count)
        return values


def build_log(
    spec: Logging,
    world: World,
    *,
    norm: Callable[[], torch.Tensor],
    gauges: Mapping[str, Callable[[], torch.Tensor]],
    watch: Watch,
    figures: Sequence[Figures],
    pace: Pace,
) -> Log:
    """`gauges`: what other parts of the run have to show, by key."""
    return Log(
        pace(spec.interval),
        Meter(world),
        {**gauges, **({"train/gradient_norm": norm} if spec.gradient_norm else {})},
        watch,
        figures,
    )


def build_watch(spec: Logging) -> Watch:
    """Starts when it is made."""
    return Stopwatch() if spec.performance or spec.timing else NoWatch()


def build_figures(
    spec: Logging,
    watch: Watch,
    world: World,
    *,
    flops: Callable[[], float | None],
    tokens_per_sample: int,
    peak_tflops: float | None,
) -> tuple[Figures, ...]:
    """`flops`: of one sample, forward and backward; `peak_tflops`: of one device, where the spec does not say."""
    if not isinstance(watch, Stopwatch):
        return ()
    performance = Performance(
        watch,
        world,
        unit="tokens" if tokens_per_sample else "samples",
        flops=lambda: None if (whole := flops()) is None else whole / (tokens_per_sample or 1),
        peak_tflops=spec.peak_tflops or peak_tflops,
    )
    return (*((performance,) if spec.performance else ()), *((Timing(watch),) if spec.timing else ()))


def part_of(figures: Sequence[Figures], artifacts: ArtifactWriter) -> Part:
    """What the checkpoint keeps of the figures, and timing.json, written when the run has ended."""
    timings = [each for each in figures if isinstance(each, Timing)]

    def write(step: int, reason: str) -> None:
        for each in timings:
            artifacts.text("timing.json", json.dumps({"attempts": each.attempts(step)}, indent=1) + "\n")

    return Part({"timing": timings[0]}, exit_hooks=(write,)) if timings else Part()


def build_sinks(spec: JobSpec, artifacts: ArtifactWriter, journal: Journal) -> Part:
    """Sinks hear what the journal says and are closed when the run has ended. Raises SpecProblem where a package is missing."""
    made = Sinks(tuple(_sink(sink) for sink in spec.logging.sinks), spec, artifacts)
    if artifacts.is_lead:
        journal.listeners.append(made)
    return Part(exit_hooks=(made.keep,))


def _sink(spec: AnySink) -> Sink:
    match spec:
        case JsonLines():
            return sinks.JsonLines()
        case TensorBoard():
            return sinks.TensorBoard()
        case _:
            assert_never(spec)
