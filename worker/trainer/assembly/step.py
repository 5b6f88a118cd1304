"""What one optimizer step consists of: passes, optimizer, update, average and learning rate."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from stoker.spec.base import Duration
from stoker.spec.evaluation import Mode
from worker.trainer.assembly.context import Context
from worker.trainer.assembly.data import BuiltFeed
from worker.trainer.assembly.model import BuiltReplica
from worker.trainer.debug import build_guard, rollback_part, watches
from worker.trainer.debug.guard import Backoff, Guard
from worker.trainer.debug.inspection import watched
from worker.trainer.distributed import periodic_averaging, remote, strategy_part
from worker.trainer.distributed.timed import timed
from worker.trainer.gan.passes import in_turn, turns
from worker.trainer.initialization.finetune import reached_in, scale_of, thawing
from worker.trainer.optimizer.multi_optimizer import averaged, build_optimizers
from worker.trainer.regularization import build_regularizer
from worker.trainer.runtime.part import Part, merged
from worker.trainer.runtime.tpu import suited
from worker.trainer.schedule import Course, LearningRate, build_schedule
from worker.trainer.task.multi_task import log_variances
from worker.trainer.training import Clip, build_clip
from worker.trainer.training.adversarial import build_adversary
from worker.trainer.training.average import Average, InTurn, build_average, in_run, settled_rate
from worker.trainer.training.dynamic_batch import Growth, build_fitting, build_growth, run_length
from worker.trainer.training.passes import Accumulated, Passes, build_passes
from worker.trainer.training.statistics import renew
from worker.trainer.training.truncation import build_portions
from worker.trainer.training.update import Update


@dataclass(frozen=True)
class BuiltUpdate:
    """What happens once the gradients of a step are there."""

    optimizer: torch.optim.Optimizer
    update: Update
    backoff: Backoff
    average: Average
    norm: Callable[[], torch.Tensor]
    """Norm of all gradients before they were clipped."""
    judge: Callable[[], tuple[Clip, Guard]]
    """Makes clipping and guard again, for a second network."""
    part: Part


@dataclass(frozen=True)
class BuiltPasses:
    passes: Passes
    part: Part


@dataclass(frozen=True)
class BuiltSchedule:
    course: Course
    lr: LearningRate
    growth: Growth
    """How the batch size follows the evaluations."""
    part: Part


def build_update(context: Context, fed: BuiltFeed, built: BuiltReplica) -> BuiltUpdate:
    """Raises SpecProblem."""
    spec, world, training = context.spec, context.world, context.spec.training
    replica, arithmetic = built.replica, built.arithmetic
    groups = build_optimizers(spec, built.weights, scale_of(spec.initialization.finetune, built.model))
    optimizer = remote(replica, suited(world.device, groups))
    met = periodic_averaging(built.spec, replica, optimizer, world)
    measured = spec.logging.gradient_norm or watches(spec.debug)

    def judge() -> tuple[Clip, Guard]:
        clip = build_clip(training.gradient_clipping, built.params, measured=measured, pieces=world.pieces)
        return clip, build_guard(
            spec.debug, world, context.journal, norm=clip.norm, overflowed=lambda: arithmetic.scaler.overflowed
        )

    clip, guard = judge()
    backoff = Backoff()
    regularizer = build_regularizer(spec.regularization, built.model, built.weights, world.pieces)
    update = Update(optimizer, arithmetic.scaler, clip, guard, regularizer, turns(spec.task))
    average, averages = build_average(
        training.ema,
        training.swa,
        built.model,
        steps=_in_run(context, fed),
        within=averaged(spec),
        statistics=lambda: renew(built.model, replica.outputs, fed.feed.inputs(), arithmetic.autocast, world),
    )
    part = merged(
        (
            rollback_part(spec.debug, backoff),
            arithmetic.part(),
            guard.part(),
            regularizer.part(),
            log_variances(built.model),
            strategy_part(replica),
            Part(met),
            averages,
        )
    )
    return BuiltUpdate(optimizer, update, backoff, InTurn((*met.values(), average)), clip.norm, judge, part)


def build_step_passes(context: Context, fed: BuiltFeed, built: BuiltReplica, made: BuiltUpdate) -> BuiltPasses:
    """Forward and backward passes with everything that the spec lays around them. Raises SpecProblem."""
    spec, world, clock, training = context.spec, context.world, context.clock, context.spec.training
    replica, arithmetic = built.replica, built.arithmetic
    portions, streams = build_portions(
        training.tbptt, built.model, batch_size=training.batch_size, per_epoch=fed.feed.per_epoch, world=world
    )
    adversary, opponents = build_adversary(
        training.adversarial,
        built.objective,
        arithmetic.autocast,
        world,
        batch_size=training.batch_size,
        moment=lambda: clock.step,
        seed=context.seeds.attack,
    )
    plain = build_passes(replica, Accumulated(timed(replica, context.watch), arithmetic, portions, adversary), fed.micro)
    passes, fitting = build_fitting(training.dynamic_batch, plain, replica, built.model, fed.micro, world, context.journal)
    reached = reached_in(fed.feed.timeline, fed.feed.samples_after, fed.tokens, lambda: clock.step)
    passes, rival = in_turn(
        spec.task,
        built.model,
        replica,
        thawing(spec.initialization.finetune, built.model, passes, reached),
        made.update,
        judge=made.judge,
        arithmetic=arithmetic,
        watch=context.watch,
        world=world,
        moment=lambda: clock.step,
    )
    return BuiltPasses(watched(passes, spec.debug.detect_anomaly), merged((streams, opponents, fitting, rival)))


def build_rates(context: Context, fed: BuiltFeed, made: BuiltUpdate, modes: Mapping[str, Mode], largest: int) -> BuiltSchedule:
    """`modes`: which way each evaluated metric is better; `largest`: the batch that holds all training samples. Raises SpecProblem."""
    spec, clock, training = context.spec, context.clock, context.spec.training
    course = build_schedule(
        spec.schedule,
        spec.optimizer.lr,
        total=clock.total,
        per_epoch=fed.feed.per_epoch,
        modes=modes,
        journal=context.journal,
    )

    def grown() -> None:
        clock.total = run_length(training, fed.feed.timeline, fed.tokens)

    growth, growing = build_growth(
        training.dynamic_batch,
        fed.feed.timeline,
        modes,
        context.journal,
        largest=largest,
        grown=grown,
        ends=lambda: clock.steps,
    )
    rate = settled_rate(training.swa, course.rate, _in_run(context, fed))
    return BuiltSchedule(course, made.backoff.applied(rate), growth, merged((growing, course.part)))


def _in_run(context: Context, fed: BuiltFeed) -> Callable[[Duration], int | None]:
    """Durations of the spec as optimizer steps."""
    return in_run(fed.feed.per_epoch, context.spec.training.batch_size * fed.tokens)
