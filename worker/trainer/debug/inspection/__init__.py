"""Inspection specs into what is done before the first step, between steps and at the end, to show the inside of a run."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import nn

from stoker.spec.base import Duration
from stoker.spec.debug import Debug
from worker.trainer.debug.inspection.anomaly import watched
from worker.trainer.debug.inspection.probes import Look, MeanLoss, check_paths
from worker.trainer.debug.inspection.profiler import Record
from worker.trainer.debug.inspection.summary import keep_summary
from worker.trainer.debug.inspection.weights import KeepHistograms, ReportGradientNorms
from worker.trainer.measure.flops import MetaModel
from worker.trainer.measure.stopwatch import Watch
from worker.trainer.runtime.artifact import ArtifactWriter
from worker.trainer.runtime.hooks import Act, FinishHook, StepHook
from worker.trainer.runtime.journal import Journal
from worker.trainer.runtime.part import Part
from worker.trainer.runtime.rhythm import Rhythm
from worker.trainer.runtime.world import World

__all__ = ["build_inspection", "show_model", "watched"]

Slice = Callable[[int, int, torch.device], tuple[torch.Tensor, torch.Tensor]]
"""Inputs and targets of some rows."""


def show_model(spec: Debug, model: nn.Module, meta_model: MetaModel, artifacts: ArtifactWriter) -> None:
    """Before ranks share the model out. Raises SpecProblem for a probe of a module that is not there."""
    check_paths(spec.probes, model)
    if spec.model_summary:
        keep_summary(model, meta_model, artifacts)


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
    artifacts: ArtifactWriter,
    journal: Journal,
) -> Part:
    """`rows`: of the training split. Raises SpecProblem for a probe that sees nothing."""
    acts: list[tuple[Duration, Act]] = []
    if spec.histograms is not None:
        acts.append((spec.histograms.interval, KeepHistograms(spec.histograms, model, artifacts)))
    if spec.gradients is not None:
        acts.append((spec.gradients.interval, ReportGradientNorms(model, journal)))
    for probe in spec.probes:
        inputs, targets = rows(0, probe.samples, world.device)
        look = Look(probe, model, inputs, targets, mean_loss, autocast, artifacts, journal)
        look.look()
        acts.append((probe.interval, look))
    exit_hooks: tuple[FinishHook, ...] = ()
    if spec.profiler is not None:
        record = Record(spec.profiler, world, artifacts)
        acts.append((Duration(steps=1), record))
        exit_hooks = (record.finish,)
    hooks = tuple(StepHook(rhythm(interval), _timed(act, watch)) for interval, act in acts)
    return Part(step_hooks=hooks, exit_hooks=exit_hooks)


def _timed(act: Act, watch: Watch) -> Act:
    def done(step: int) -> None:
        with watch.during("insight"):
            act(step)

    return done
