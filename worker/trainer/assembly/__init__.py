"""From a spec to a run that is ready to start.

Each product holds what is known at one point: the context before data is read, the data set, the model with its loss, the step,
and what is reported around steps. A feature is built in the file of its product; what it adds to checkpoints, logs and hooks is a
`Part`, and the parts are merged here.
"""

import math
from pathlib import Path

import torch

from stoker.spec import JobSpec
from worker.trainer.assembly.context import Context, build_context
from worker.trainer.assembly.data import build_feed, read_data
from worker.trainer.assembly.model import init_model, spread
from worker.trainer.assembly.reports import build_reports, judge_splits
from worker.trainer.assembly.run import Clock, Run
from worker.trainer.assembly.step import build_rates, build_step_passes, build_update
from worker.trainer.data import Description
from worker.trainer.distributed import slack
from worker.trainer.initialization import Given
from worker.trainer.logging import build_log
from worker.trainer.runtime.control import Control, StopSignal
from worker.trainer.runtime.hooks import after_each_step, one_by_one
from worker.trainer.runtime.journal import Journal
from worker.trainer.runtime.part import Part, merged
from worker.trainer.runtime.tpu import end_of_step, noise_part
from worker.trainer.runtime.world import World
from worker.trainer.staging import build_staging
from worker.trainer.training import build_judge
from worker.trainer.training.distillation import Taught

__all__ = ["Clock", "Run", "assemble"]


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
    context = build_context(spec, home, world, journal, learned=learned, taught=taught, given=given)
    data = read_data(context)
    model = init_model(context, data)
    fed = build_feed(context, data, model.loss)
    held = spread(context, data, model)
    update = build_update(context, fed, held)
    passes = build_step_passes(context, fed, held, update)
    judged = judge_splits(context, data, fed, model, held)
    rates = build_rates(context, fed, update, judged.modes, len(data.dataset.train))
    reports = build_reports(context, data, fed, model, held, judged.examiner)
    device = context.world.device
    each_step, noise = Part(step_hooks=after_each_step(end_of_step(device))), noise_part(device, _noise_seed(context))
    part = merged((each_step, reports.part, update.part, passes.part, rates.part, noise))
    run = Run(
        spec=spec,
        home=home,
        world=context.world,
        journal=journal,
        clock=context.clock,
        control=Control(context.world, signalled, slack(held.spec)),
        seeds=context.seeds,
        data=data.dataset,
        feed=fed.feed,
        model=held.model,
        params=held.params,
        parameters=model.parameters,
        replica=held.replica,
        passes=passes.passes,
        optimizer=update.optimizer,
        update=update.update,
        backoff=update.backoff,
        average=update.average,
        course=rates.course,
        lr=rates.lr,
        growth=rates.growth,
        log=build_log(
            spec.logging,
            context.world,
            norm=update.norm,
            gauges=part.gauges,
            watch=context.watch,
            figures=reports.figures,
            pace=fed.pace,
        ),
        examiner=judged.examiner,
        judge=build_judge(spec.training.early_stopping, judged.modes),
        saving=fed.pace(spec.checkpoint.interval),
        staging=build_staging(spec.checkpoint, device),
        step_hooks=part.step_hooks,
        explain=one_by_one(part.finish_hooks),
        leave=one_by_one(part.exit_hooks),
        stateful=part.stateful,
        seconds=spec.training.max_seconds or math.inf,
    )
    torch.manual_seed(_noise_seed(context))
    return run


def _noise_seed(context: Context) -> int:
    return context.seeds.noise(context.world.stream, 0)
