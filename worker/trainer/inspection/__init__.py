"""Inspection specs into what is done before the first step, between steps and at the end, to show the inside of a run."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn

from stoker.spec._base import Duration
from stoker.spec.debug import Debug
from worker.trainer.artifact import Shelf
from worker.trainer.flops import Hollow
from worker.trainer.habit import Act, Ending, Habit
from worker.trainer.inspection.anomaly import watched
from worker.trainer.inspection.probes import Look, MeanLoss, check_paths
from worker.trainer.inspection.profiler import Record
from worker.trainer.inspection.summary import keep_summary
from worker.trainer.inspection.weights import KeepHistograms, ReportGradientNorms
from worker.trainer.journal import Journal
from worker.trainer.rhythm import Rhythm
from worker.trainer.stopwatch import Watch
from worker.trainer.world import World

__all__ = ["Inspection", "build_inspection", "show_model", "watched"]

Slice = Callable[[int, int, torch.device], tuple[torch.Tensor, torch.Tensor]]
"""Inputs and targets of some rows."""


@dataclass(frozen=True)
class Inspection:
    habits: tuple[Habit, ...]
    endings: tuple[Ending, ...]


def show_model(spec: Debug, model: nn.Module, hollow: Hollow, shelf: Shelf) -> None:
    """Before ranks share the model out. Raises SpecProblem for a probe of a module that is not there."""
    check_paths(spec.probes, model)
    if spec.model_summary:
        keep_summary(model, hollow, shelf)


def build_inspection(
    spec: Debug,
    model: nn.Module,
    *,
    rows: Slice,
    mean_loss: MeanLoss,
    autocast: Callable[[], AbstractContextManager[object]],
    rhythm: Callable[[Duration], Rhythm],
    world: World,
    watch: Watch,
    shelf: Shelf,
    journal: Journal,
) -> Inspection:
    """`rows`: of the training split. Raises SpecProblem for a probe that sees nothing."""
    acts: list[tuple[Duration, Act]] = []
    if spec.histograms is not None:
        acts.append((spec.histograms.interval, KeepHistograms(spec.histograms, model, shelf)))
    if spec.gradients is not None:
        acts.append((spec.gradients.interval, ReportGradientNorms(model, journal)))
    for probe in spec.probes:
        inputs, targets = rows(0, probe.samples, world.device)
        look = Look(probe, model, inputs, targets, mean_loss, autocast, shelf, journal)
        look.look()
        acts.append((probe.interval, look))
    endings: tuple[Ending, ...] = ()
    if spec.profiler is not None:
        record = Record(spec.profiler, world, shelf)
        acts.append((Duration(steps=1), record))
        endings = (record.finish,)
    return Inspection(tuple(Habit(rhythm(interval), _timed(act, watch)) for interval, act in acts), endings)


def _timed(act: Act, watch: Watch) -> Act:
    def done(step: int) -> None:
        with watch.during("insight"):
            act(step)

    return done
