"""Evaluation spec into the judgement of a split: the loss, and whatever metrics were asked for, over all ranks."""

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn

from stoker.spec.evaluation import BitsPerByte, Evaluation, Metric, Mode, Perplexity
from worker.trainer.errors import SpecProblem
from worker.trainer.runtime.rhythm import Pace, Rhythm
from worker.trainer.runtime.world import World

if TYPE_CHECKING:  # at run time it is imported by runs that measure something
    from worker.trainer.evaluation.metrics import Measure


class Split(Protocol):
    """Samples that are read in slices."""

    def __len__(self) -> int: ...

    def slice(self, start: int, stop: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]: ...


class Criterion(Protocol):
    """A summed loss that knows what each sample counts."""

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor: ...

    def sample_weights(self, targets: torch.Tensor) -> torch.Tensor: ...


def _same(value: torch.Tensor) -> torch.Tensor:
    return value


@dataclass(frozen=True)
class Measuring:
    """What metrics see of outputs and targets."""

    labels: bool = False
    """Outputs are for labels, each there or not, not for classes."""
    predicted: Callable[[torch.Tensor], torch.Tensor] = _same
    """Of outputs what is held against the targets."""
    truth: Callable[[torch.Tensor], torch.Tensor] = _same
    """Of targets what is to be predicted."""


@dataclass(frozen=True)
class Question:
    """Something to be measured, of all outputs and targets or of those of one task."""

    metrics: tuple[Metric, ...]
    outputs: int
    """Classes, labels or numbers."""
    measuring: Measuring = Measuring()
    prefix: str = ""
    """What names of values begin with."""


@dataclass(frozen=True)
class Report:
    """Further values that a loss knows of, averaged over samples."""

    modes: Mapping[str, Mode | None]
    """By name, which way each is better; None where neither is."""
    sums: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    """Of outputs and targets: (values,), summed over samples."""


@dataclass(frozen=True)
class MetricGroups:
    """How a model that answers several questions is judged."""

    questions: Callable[[tuple[Metric, ...]], tuple[Question, ...]]
    """Who is measured by which of all metrics."""
    report: Report


@dataclass(frozen=True)
class Text:
    """What perplexity and bits per byte need beside the outputs."""

    likelihood: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    """Minus the summed log-probability of targets."""
    byte_lengths: torch.Tensor
    """Bytes that each token stands for."""


@dataclass
class Tally:
    """Sums over one split, of this rank until they are shared: loss, weight, minus log-probability, tokens, bytes, and the report."""

    sums: torch.Tensor
    measures: "dict[str, dict[str, Measure]]"
    """By the prefix of the question and the key of the metric."""


@dataclass
class Examiner:
    """Judges a model on splits."""

    rhythm: Rhythm
    questions: tuple[Question, ...]
    criterion: Criterion
    text: Text | None
    batch_size: int
    limit: int | None
    """Validation samples at most."""
    world: World
    autocast: Callable[[], AbstractContextManager[object]]
    report: Report | None = None

    @property
    def modes(self) -> dict[str, Mode]:
        """Which way each value is better."""
        known: dict[str, Mode] = {"loss": "min"}
        if self.report is not None:
            known |= {name: mode for name, mode in self.report.modes.items() if mode is not None}
        for question in self.questions:
            known |= {f"{question.prefix}{metric.key}": metric.mode for metric in question.metrics}
        return known

    @torch.no_grad()
    def judge(
        self, model: nn.Module, says: Callable[[torch.Tensor], torch.Tensor], split: Split, limit: int | None = None
    ) -> dict[str, float]:
        """Values by key, the same on every rank; nothing for an empty split. Leaves the model in training mode.

        `says` gives the model's outputs. Parts of the world take consecutive parts of the split, so that the same samples are
        judged for any number of them. All ranks ask equally often, for the answer may need all of them: one that has nothing
        left asks about the first sample and forgets what it hears.
        """
        count, part, parts = min(len(split), limit or len(split)), self.world.data_index, self.world.data_parts
        if count == 0:
            return {}
        model.eval()
        tally = Tally(torch.zeros(5 + len(self._reported), dtype=torch.float64, device=self.world.device), self._measures())
        start, stop, largest = count * part // parts, count * (part + 1) // parts, -(-count // parts)
        for at in range(start, start + largest, self.batch_size):
            inputs, targets = split.slice(*(at, min(at + self.batch_size, stop)) if at < stop else (0, 1), self.world.device)
            with self.autocast():
                outputs = says(inputs)
            if at < stop:
                self._add(tally, outputs.float(), targets)
        self._measure(tally, outputs[:0].float(), targets[:0])
        model.train()
        return self._values(tally)

    def _add(self, tally: Tally, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        tally.sums[0] += self.criterion(outputs, targets)
        tally.sums[1] += self.criterion.sample_weights(targets).sum().to(self.world.device)
        if self.text is not None:
            tally.sums[2] += self.text.likelihood(outputs, targets)
            asked = targets[targets >= 0]
            tally.sums[3] += asked.numel()
            tally.sums[4] += self.text.byte_lengths[asked].sum()
        if self.report is not None:
            tally.sums[5:] += self.report.sums(outputs, targets)
        self._measure(tally, outputs, targets)

    def _measure(self, tally: Tally, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        for question in self.questions:
            measures, measuring = tally.measures[question.prefix], question.measuring
            if not measures:
                continue
            predicted, truth = measuring.predicted(outputs.flatten(0, -2)).contiguous(), measuring.truth(targets).contiguous()
            for measure in measures.values():
                measure.update(predicted, truth if truth.is_floating_point() else truth.flatten())

    @property
    def _reported(self) -> tuple[str, ...]:
        return () if self.report is None else tuple(self.report.modes)

    def _measures(self) -> "dict[str, dict[str, Measure]]":
        return {question.prefix: self._built(question) for question in self.questions}

    def _built(self, question: Question) -> "dict[str, Measure]":
        wanted = [metric for metric in question.metrics if not isinstance(metric, Perplexity | BitsPerByte)]
        if not wanted:
            return {}
        build, labels = importlib.import_module("worker.trainer.evaluation.metrics").build_measure, question.measuring.labels
        return {metric.key: build(metric, question.outputs, self.world.device, labels=labels) for metric in wanted}

    def _values(self, tally: Tally) -> dict[str, float]:
        loss, weight, surprise, tokens, size, *reported = self.world.sum(tally.sums).tolist()
        values = {"loss": loss / weight if weight else math.nan}
        values |= {name: value / weight for name, value in zip(self._reported, reported, strict=True)}
        for question, metric in [(each, metric) for each in self.questions for metric in each.metrics]:
            key = f"{question.prefix}{metric.key}"
            match metric:
                case Perplexity():
                    values[key] = _exponential(surprise / tokens)
                case BitsPerByte():
                    values[key] = surprise / math.log(2) / size if size else math.nan
                case _:
                    values[key] = tally.measures[question.prefix][metric.key].compute()
        return values


def _exponential(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def build_examiner(
    spec: Evaluation,
    defaults: Sequence[Metric],
    *,
    criterion: Criterion,
    text: Text | None,
    outputs: int,
    micro_size: int,
    pace: Pace,
    world: World,
    autocast: Callable[[], AbstractContextManager[object]],
    measuring: Measuring = Measuring(),
    groups: MetricGroups | None = None,
) -> Examiner:
    """`defaults`: what the task measures when the spec names nothing; `groups`: how several tasks are judged.

    Raises SpecProblem for a metric that does not fit.
    """
    metrics = tuple(defaults) if spec.metrics is None else spec.metrics
    if text is None and any(isinstance(metric, Perplexity | BitsPerByte) for metric in metrics):
        raise SpecProblem("evaluation.metrics: perplexity and bits_per_byte are for causal_lm")
    batch_size = spec.batch_size or micro_size
    examiner = Examiner(
        pace(spec.interval),
        (Question(metrics, outputs, measuring),) if groups is None else groups.questions(metrics),
        criterion,
        text,
        batch_size,
        spec.batches and spec.batches * batch_size,
        world,
        autocast,
        None if groups is None else groups.report,
    )
    examiner._measures()  # a metric that cannot be built is found before the first step
    return examiner
