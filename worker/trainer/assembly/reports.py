"""What is reported, judged and saved around the steps: evaluation, logs, inspection, explanations, checkpoints."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from stoker.spec.evaluation import Mode
from worker.trainer.assembly.context import Context
from worker.trainer.assembly.data import BuiltData, BuiltFeed
from worker.trainer.assembly.model import BuiltModel, BuiltReplica
from worker.trainer.data import Description, Samples
from worker.trainer.debug import build_stragglers
from worker.trainer.debug.inspection import build_inspection
from worker.trainer.evaluation import Examiner, Measuring, Text, build_examiner
from worker.trainer.evaluation.diagnosis import build_diagnosis
from worker.trainer.gan.passes import gan_metric_groups, shares_of
from worker.trainer.gan.samples import build_samples
from worker.trainer.interpretability import ExplainInputs, build_interpretability
from worker.trainer.logging import build_figures, build_sinks, part_of
from worker.trainer.loss import OfClasses, SampleWeighted, SummedLoss
from worker.trainer.measure.figures import Figures
from worker.trainer.measure.flops import cost_of
from worker.trainer.measure.peaks import peak_of
from worker.trainer.runtime.part import Part, merged
from worker.trainer.runtime.world import World
from worker.trainer.task.multi_task import metric_groups_of


@dataclass(frozen=True)
class BuiltExaminer:
    examiner: Examiner
    modes: dict[str, Mode]
    """Which way each metric of the validation split is better; empty without one."""


@dataclass(frozen=True)
class BuiltReports:
    figures: tuple[Figures, ...]
    """Speed and cost, read with the training metrics."""
    part: Part


def judge_splits(context: Context, data: BuiltData, fed: BuiltFeed, built: BuiltModel, held: BuiltReplica) -> BuiltExaminer:
    """How splits are judged. Raises SpecProblem."""
    measuring = Measuring(context.aim.labels, built.reading.predicted, built.reading.truth)
    groups = metric_groups_of(context.spec.task, built.loss) or gan_metric_groups(built.loss, measuring, data.outputs)
    examiner = build_examiner(
        context.spec.evaluation,
        context.aim.metrics,
        criterion=built.loss,
        text=_text(built.loss, data.dataset.about, context.world),
        outputs=data.outputs,
        micro_size=fed.micro,
        pace=fed.pace,
        world=context.world,
        autocast=held.arithmetic.autocast,
        measuring=measuring,
        groups=groups,
    )
    validated = examiner.modes if len(data.dataset.validation) else {}
    return BuiltExaminer(examiner, {f"validation/{key}": mode for key, mode in validated.items()})


def build_reports(
    context: Context, data: BuiltData, fed: BuiltFeed, built: BuiltModel, held: BuiltReplica, examiner: Examiner
) -> BuiltReports:
    """What is measured between steps and left at the end. Raises SpecProblem where a report could not be made."""
    spec, world, writer = context.spec, context.world, context.artifacts
    figures = build_figures(
        spec.logging,
        context.watch,
        world,
        flops=cost_of(built.meta_model, shares_of(spec.task, built.loss)),
        tokens_per_sample=fed.tokens,
        peak_tflops=peak_of(world.device, spec.precision.mode),
    )
    part = merged(
        (
            _diagnosis(context, data, built, held, examiner),
            build_samples(spec.task, spec.model, held.model, data.dataset, writer, spec.reproducibility.seed),
            _inspection(context, data, fed, built, held),
            build_interpretability(spec.interpretability, _to_explain(context, data, built, held, examiner), writer),
            build_sinks(spec, writer, context.journal),
            part_of(figures, writer),
        )
    )
    return BuiltReports((*figures, *build_stragglers(spec.debug, figures, world, context.journal)), part)


def _diagnosis(context: Context, data: BuiltData, built: BuiltModel, held: BuiltReplica, examiner: Examiner) -> Part:
    dataset = data.dataset
    return build_diagnosis(
        context.spec.evaluation,
        held.model,
        context.journal.heartbeat.around(held.replica.outputs),
        examiner=examiner,
        criterion=built.loss,
        train=dataset.train,
        validation=dataset.validation,
        columns=dataset.about.columns,
        width=0 if dataset.about.codec is not None else math.prod(dataset.about.shape),
        outputs=data.width,
        pieces=context.world.pieces,
        artifacts=context.artifacts,
        journal=context.journal,
    )


def _inspection(context: Context, data: BuiltData, fed: BuiltFeed, built: BuiltModel, held: BuiltReplica) -> Part:
    return build_inspection(
        context.spec.debug,
        held.model,
        rows=data.dataset.train.slice,
        mean_loss=_mean_loss(built.loss),
        autocast=held.arithmetic.autocast,
        rhythm=fed.pace,
        world=context.world,
        watch=context.watch,
        artifacts=context.artifacts,
        journal=context.journal,
    )


def _to_explain(context: Context, data: BuiltData, built: BuiltModel, held: BuiltReplica, examiner: Examiner) -> ExplainInputs:
    loss = built.loss
    plain = loss.loss if isinstance(loss, SampleWeighted) else loss
    splits = {name: _plain(getattr(data.dataset, name), built) for name in ("train", "validation", "test")}
    return ExplainInputs(
        held.model,
        splits["train"],
        splits,
        classes=context.aim.classes,
        outputs=data.width,
        columns=data.dataset.about.columns,
        mean_loss=_mean_loss(plain),
        batch=examiner.batch_size,
        device=context.world.device,
        seed=context.seeds.weights,
    )


def _plain(samples: Samples, built: BuiltModel) -> Samples:
    """Without the weights of samples: what explains a model looks at one sample after the other."""
    return samples.with_targets(built.reading.truth)


def _mean_loss(loss: SummedLoss) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Weighted mean loss of outputs in any number format, computed in float32."""

    def mean(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        right = targets.float() if targets.is_floating_point() else targets
        total: torch.Tensor = loss(outputs.float(), right) / loss.sample_weights(right).sum()
        return total

    return mean


def _text(loss: nn.Module, about: Description, world: World) -> Text | None:
    """What the metrics of continued text need, None elsewhere."""
    if about.codec is None or about.padded or not isinstance(loss, OfClasses):
        return None
    return Text(loss.likelihood, torch.from_numpy(about.codec.byte_lengths()).to(world.device))
