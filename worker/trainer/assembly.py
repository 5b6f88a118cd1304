"""From spec to a run ready to start. Order matters, so it is written once, here."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from stoker.plan.known import Known
from stoker.spec import JobSpec
from stoker.spec.derived.arithmetic import Sizes
from stoker.spec.evaluation import Mode
from worker.trainer.activation_checkpointing import recomputing
from worker.trainer.data import Codec, Dataset, Description, Feed, Samples, Wanted, build_data, mask, with_noise
from worker.trainer.debug import build_guard, build_stragglers, memory_of, watches
from worker.trainer.debug.guard import Backoff, Guard, together
from worker.trainer.debug.inspection import build_inspection, show_model, watched
from worker.trainer.distributed import Replica, arrange, decided, memories, periodic_averaging, remote, replicate, slack
from worker.trainer.distributed.timed import timed
from worker.trainer.errors import SpecProblem
from worker.trainer.evaluation import Examiner, Measuring, Text, build_examiner
from worker.trainer.evaluation.diagnosis import build_diagnosis
from worker.trainer.gan.passes import gan_metric_groups, in_turn, learner, shares_of, turns, with_rival
from worker.trainer.gan.samples import build_samples
from worker.trainer.initialization import Given, begin
from worker.trainer.initialization.finetune import finetuned, reached_in, scale_of, thawing
from worker.trainer.interpretability import ExplainInputs, build_interpretability
from worker.trainer.logging import Log, build_figures, build_leave, build_log, build_sinks, build_watch, parts_of
from worker.trainer.loss import (
    OfClasses,
    SampleWeighted,
    SummedLoss,
    in_chunks,
    reading_of,
)
from worker.trainer.measure.flops import MetaModel, cost_of
from worker.trainer.measure.peaks import peak_of
from worker.trainer.model import build_model
from worker.trainer.optimizer.multi_optimizer import averaged, build_optimizers, check_all_patterns
from worker.trainer.precision import Arithmetic, narrowed
from worker.trainer.regularization import build_regularizer, check_penalties
from worker.trainer.regularization.spectral_norm import bound
from worker.trainer.reproducibility import Seeds, build_seeds, use_kernels
from worker.trainer.runtime.artifact import ArtifactWriter
from worker.trainer.runtime.control import Control, StopSignal
from worker.trainer.runtime.hooks import FinishHook, StepHook, after_each_step, one_by_one
from worker.trainer.runtime.journal import Journal
from worker.trainer.runtime.names import weights_of
from worker.trainer.runtime.rhythm import Rhythm, pace_of
from worker.trainer.runtime.state import Stateful
from worker.trainer.runtime.tpu import end_of_step, moved, noises, suited
from worker.trainer.runtime.world import World
from worker.trainer.schedule import Course, LearningRate, build_schedule
from worker.trainer.staging import Staging, build_staging
from worker.trainer.task import Aim, build_task
from worker.trainer.task.criterion import build_criterion
from worker.trainer.task.multi_task import log_variances, metric_groups_of, width_of, with_heads
from worker.trainer.training import Clip, Judge, build_clip, build_judge, micro_size
from worker.trainer.training.adversarial import build_adversary, replays_of
from worker.trainer.training.average import Average, InTurn, build_average, in_run, settled_rate
from worker.trainer.training.distillation import Taught, build_objective
from worker.trainer.training.dynamic_batch import (
    Growth,
    build_fitting,
    build_growth,
    fits_memory,
    keeps_size,
    lay_out,
    run_length,
)
from worker.trainer.training.passes import Accumulated, Passes, build_passes
from worker.trainer.training.statistics import renew
from worker.trainer.training.truncation import build_portions
from worker.trainer.training.update import Update


@dataclass
class Run:
    """Everything the loop touches, built and in its place."""

    spec: JobSpec
    home: Path
    world: World
    journal: Journal
    control: Control
    seeds: Seeds
    data: Dataset
    feed: Feed
    model: nn.Module
    params: Sequence[nn.Parameter]
    parameters: int
    """Numbers that are learned, over all ranks."""
    replica: Replica
    passes: Passes
    optimizer: torch.optim.Optimizer
    update: Update
    backoff: Backoff
    average: Average
    course: Course
    """What the schedule does to the optimizer."""
    lr: LearningRate
    log: Log
    examiner: Examiner
    judge: Judge
    growth: Growth
    saving: Rhythm
    staging: Staging
    """How it is saved."""
    step_hooks: Sequence[StepHook]
    """What else is done between steps."""
    explain: FinishHook
    """What is done with the weights a run ends with, before they are saved; not by a run that is to go on later."""
    leave: FinishHook
    """What is done once the run has ended and is saved."""
    stateful: dict[str, Stateful]
    """Parts with a memory of their own that the checkpoint keeps, by name."""
    total: int | None
    """Steps of the whole run, None when only time ends it."""
    seconds: float
    """Training time of the whole run, infinite when only steps end it."""
    step: int = 0
    logged: int = 0
    """Step of the last report of training metrics."""
    evaluated: int = -1
    """Step of the last evaluation."""
    saved: int = -1
    """Step of the last checkpoint."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Newest evaluation."""
    ended: str | None = None
    """Why the run is over, once it is."""

    @property
    def steps(self) -> float:
        """The same as `total`, as a bound."""
        return math.inf if self.total is None else self.total


def assemble(
    spec: JobSpec,
    home: Path,
    world: World,
    journal: Journal,
    signalled: StopSignal,
    *,
    learned: Description | None,
    taught: Taught | None,
    given: Given | None = None,
) -> Run:
    """`learned`: what an earlier attempt derived from the data; `taught`: the model to learn from; `given`: weights to start from.

    Raises SpecProblem or DataProblem.
    """
    watch = build_watch(spec.logging)
    use_kernels(spec.reproducibility)
    world = arrange(spec.distributed, world)
    seeds, aim = build_seeds(spec.reproducibility), build_task(spec.task)
    journal.phase("loading_data")
    wanted = _wanted(aim, spec.data.sample_weight_column) if aim.labelled else None
    data = build_data(
        spec.data, wanted, aim.count, home, seed=seeds.split, world=world, learned=learned, inherited=_inherited(given, taught)
    )
    data = with_noise(spec.model, mask(spec.task, data, seeds.mask), seeds.latent)
    outputs, goal = data.about.outputs, spec.loss or aim.loss
    if aim.count is not None and aim.count != outputs:
        counted = "num_labels" if aim.labels else "num_outputs"
        raise SpecProblem(f"task.{counted} is {aim.count}, but the data set has {outputs}")

    journal.phase("building_model")
    torch.manual_seed(seeds.weights)
    width = width_of(spec.task, goal, data.about)
    text, vocabulary = data.about.codec is not None, data.about.vocabulary
    built = build_model(spec.model, data.about.shape, width, text=text, vocabulary=vocabulary, padding=data.about.padding)
    model = moved(built, world.device)
    model = narrowed(with_heads(spec.task, model, data.about), spec.precision)
    begin(spec.initialization, model, given, data.about.codec, journal)
    finetuned(spec.initialization.finetune, model)
    model = bound(spec.regularization.spectral_norm, model)
    loss = build_criterion(goal, spec, outputs, data, classes=aim.classes, model=model).to(world.device)
    reading = reading_of(loss)
    micro, training = micro_size(spec.training, spec.distributed.data_parts), spec.training
    feed = Feed(
        spec.data.loader,
        data.train,
        batch_size=training.batch_size,
        micro_size=micro,
        weights=loss.sample_weights(data.train.counted),
        streams=training.tbptt is not None and training.tbptt.stateful,
        order_seed=seeds.order,
        replays=replays_of(training.adversarial),
        world=world,
    )
    tokens = data.train.tokens_per_sample
    artifacts, meta_model = (
        ArtifactWriter(home, journal, world.is_lead),
        MetaModel(model, data.train.slice(0, 1, torch.device("cpu"))[0]),
    )
    show_model(spec.debug, model, meta_model, artifacts)
    lay_out(training.dynamic_batch, feed.timeline, tokens)
    total = run_length(training, feed.timeline, tokens)
    pace = pace_of(feed.timeline, training.batch_size, tokens, steady=keeps_size(training.dynamic_batch))
    arithmetic = Arithmetic(spec.precision, world)
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    check_all_patterns(spec, weights_of(model))
    check_penalties(spec.regularization, weights_of(model))
    chosen = decided(spec, _known(data, width), world, journal, 0 if taught is None else taught.bytes)
    spread = chosen.distributed
    model = recomputing(chosen.activation_checkpointing, model)
    objective = build_objective(
        training.distillation,
        learner(model),
        loss,
        taught=taught,
        about=data.about,
        sample=data.train.slice(0, 1, world.device)[0],
        world=world,
    )
    objective = in_chunks(goal, objective)
    replica = replicate(spread, objective, world, late=fits_memory(training.dynamic_batch))
    replica = with_rival(spread, model, loss, world, replica)
    weights = weights_of(model)  # those that the strategy left: it may have cut them
    params = [weight for _, weight in weights]
    groups = build_optimizers(spec, weights, scale_of(spec.initialization.finetune, model))
    optimizer = remote(replica, suited(world.device, groups))
    met = periodic_averaging(spread, replica, optimizer, world)
    measured = spec.logging.gradient_norm or watches(spec.debug)

    def judge() -> tuple[Clip, Guard]:
        clip = build_clip(training.gradient_clipping, params, measured=measured, pieces=world.pieces)
        return clip, build_guard(spec.debug, world, journal, norm=clip.norm, overflowed=lambda: arithmetic.scaler.overflowed)

    portions, streams = build_portions(
        training.tbptt, model, batch_size=training.batch_size, per_epoch=feed.per_epoch, world=world
    )
    clip, guard = judge()
    backoff = Backoff()
    regularizer = build_regularizer(spec.regularization, model, weights, world.pieces)
    update = Update(optimizer, arithmetic.scaler, clip, guard, regularizer, turns(spec.task))
    steps = in_run(feed.per_epoch, training.batch_size * tokens)
    average, averages = build_average(
        training.ema,
        training.swa,
        model,
        steps=steps,
        within=averaged(spec),
        statistics=lambda: renew(model, replica.outputs, feed.inputs(), arithmetic.autocast, world),
    )
    adversary, opponents = build_adversary(
        training.adversarial,
        objective,
        arithmetic.autocast,
        world,
        batch_size=training.batch_size,
        moment=lambda: run.step,
        seed=seeds.attack,
    )
    passes, fitting = build_fitting(
        training.dynamic_batch,
        build_passes(replica, Accumulated(timed(replica, watch), arithmetic, portions, adversary), micro),
        replica,
        model,
        micro,
        world,
        journal,
    )
    reached = reached_in(feed.timeline, feed.samples_after, tokens, lambda: run.step)
    passes = thawing(spec.initialization.finetune, model, passes, reached)
    contested = in_turn(
        spec.task,
        model,
        replica,
        passes,
        update,
        judge=judge,
        arithmetic=arithmetic,
        watch=watch,
        world=world,
        moment=lambda: run.step,
    )
    measuring = Measuring(aim.labels, reading.predicted, reading.truth)
    examiner = build_examiner(
        spec.evaluation,
        aim.metrics,
        criterion=loss,
        text=_text(loss, data.about, world),
        outputs=outputs,
        micro_size=micro,
        pace=pace,
        world=world,
        autocast=arithmetic.autocast,
        measuring=measuring,
        groups=metric_groups_of(spec.task, loss) or gan_metric_groups(loss, measuring, outputs),
    )
    mean_loss = _mean_loss(loss)
    plain = _mean_loss(loss.loss if isinstance(loss, SampleWeighted) else loss)
    splits = {name: _plain(getattr(data, name), reading.truth) for name in ("train", "validation", "test")}
    matter = ExplainInputs(
        model,
        splits["train"],
        splits,
        classes=aim.classes,
        outputs=width,
        columns=data.about.columns,
        mean_loss=plain,
        batch=examiner.batch_size,
        device=world.device,
        seed=seeds.weights,
    )
    diagnosis = build_diagnosis(
        spec.evaluation,
        model,
        journal.heartbeat.around(replica.outputs),
        examiner=examiner,
        criterion=loss,
        train=data.train,
        validation=data.validation,
        columns=data.about.columns,
        width=0 if text else math.prod(data.about.shape),
        outputs=width,
        pieces=world.pieces,
        artifacts=artifacts,
        journal=journal,
    )
    samples = build_samples(spec.task, spec.model, model, data, artifacts, spec.reproducibility.seed)
    inspection = build_inspection(
        spec.debug,
        model,
        rows=data.train.slice,
        mean_loss=mean_loss,
        autocast=arithmetic.autocast,
        rhythm=pace,
        world=world,
        watch=watch,
        artifacts=artifacts,
        journal=journal,
    )
    peak = peak_of(world.device, spec.precision.mode)
    figures = build_figures(
        spec.logging,
        watch,
        world,
        flops=cost_of(meta_model, shares_of(spec.task, loss)),
        tokens_per_sample=tokens,
        peak_tflops=peak,
    )
    figures = (*figures, *build_stragglers(spec.debug, figures, world, journal))

    def grown() -> None:
        run.total = run_length(training, feed.timeline, tokens)

    modes = _validation_modes(examiner, data)
    course = build_schedule(spec.schedule, spec.optimizer.lr, total=total, per_epoch=feed.per_epoch, modes=modes, journal=journal)
    growth, growing = build_growth(
        training.dynamic_batch,
        feed.timeline,
        modes,
        journal,
        largest=len(data.train),
        grown=grown,
        ends=lambda: run.steps,
    )
    run = Run(
        spec=spec,
        home=home,
        world=world,
        journal=journal,
        control=Control(world, signalled, slack(spread)),
        seeds=seeds,
        data=data,
        feed=feed,
        model=model,
        params=params,
        parameters=parameters,
        replica=replica,
        passes=watched(contested.passes, spec.debug.detect_anomaly),
        optimizer=optimizer,
        update=update,
        backoff=backoff,
        average=InTurn((*met.values(), average)),
        course=course,
        lr=backoff.applied(settled_rate(training.swa, course.rate, steps)),
        log=build_log(
            spec.logging,
            world,
            norm=clip.norm,
            gauges=together(arithmetic.gauges(), guard.gauges, regularizer.gauges(), log_variances(model), contested.gauges),
            watch=watch,
            figures=figures,
            pace=pace,
        ),
        examiner=examiner,
        judge=build_judge(training.early_stopping, modes),
        growth=growth,
        staging=build_staging(spec.checkpoint, world.device),
        saving=pace(spec.checkpoint.interval),
        step_hooks=(*after_each_step(end_of_step(world.device)), *inspection.step_hooks),
        explain=one_by_one((*diagnosis, *samples, build_interpretability(spec.interpretability, matter, artifacts))),
        leave=build_leave(inspection.finish_hooks, figures, build_sinks(spec, artifacts, journal), artifacts),
        stateful={
            **parts_of(figures),
            **memory_of(spec.debug, backoff),
            **guard.parts(),
            **contested.parts,
            **fitting,
            **growing,
            **course.parts,
            **arithmetic.parts(),
            **streams,
            **memories(replica),
            **met,
            **averages,
            **opponents,
            **noises(world.device, seeds.noise(world.stream, 0)),
        },
        total=total,
        seconds=training.max_seconds or math.inf,
    )
    torch.manual_seed(seeds.noise(world.stream, 0))
    return run


def _inherited(given: Given | None, taught: Taught | None) -> Codec | None:
    """Tokens of the weights that it starts from, or of its teacher."""
    if given is not None and given.codec is not None:
        return given.codec
    return None if taught is None else taught.about.codec


def _wanted(aim: Aim, weights: str | None) -> Wanted:
    parts = tuple(_wanted(part, None) for part in aim.parts)
    return Wanted(aim.classes, aim.columns, aim.labels, weights, aim.name, aim.count, parts, aim.targets)


def _plain(samples: Samples, truth: Callable[[torch.Tensor], torch.Tensor]) -> Samples:
    """Without the weights of samples; what follows looks at one after the other."""
    return replace(samples, targets=truth(samples.targets))


def _mean_loss(loss: SummedLoss) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Of outputs in any number format."""

    def mean(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        right = targets.float() if targets.is_floating_point() else targets
        total: torch.Tensor = loss(outputs.float(), right) / loss.sample_weights(right).sum()
        return total

    return mean


def _known(data: Dataset, outputs: int) -> Known:
    """What the plan starts from, as it turned out."""
    sizes = Sizes(len(data.train), len(data.validation), len(data.test))
    per_sample, text = max(1, data.train.tokens_per_sample), data.about.codec is not None
    items = (sizes.train + sizes.validation + sizes.test) * per_sample
    return Known(data.about.shape, outputs, sizes, items, text, False, data.about.vocabulary)


def _text(loss: nn.Module, about: Description, world: World) -> Text | None:
    if about.codec is None or about.padded or not isinstance(loss, OfClasses):
        return None
    return Text(loss.likelihood, torch.from_numpy(about.codec.byte_lengths()).to(world.device))


def _validation_modes(examiner: Examiner, data: Dataset) -> dict[str, Mode]:
    return {f"validation/{key}": mode for key, mode in examiner.modes.items()} if len(data.validation) else {}
