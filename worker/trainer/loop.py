"""The training loop. Read this file first.

A step is: forward and backward (accumulated), update, average. Between steps things happen on their own rhythm: log, evaluate,
save, and step_hooks. Whatever a job did not ask for arrives here as a no-op, so nothing below is conditional on a feature, and no
step waits for a number from the device.
"""

import math
import time
from typing import Literal

from stoker.events import Metrics, Notice, Progress, Started
from worker.trainer import checkpoint
from worker.trainer.assembly import Run
from worker.trainer.errors import Diverged
from worker.trainer.recovery import prepare, recover


def train(run: Run) -> str:
    """From wherever the run is to its end; why it ended. Raises Diverged."""
    run.journal.write(_started(run))
    prepare(run)
    run.journal.phase("training")
    run.log.watch.start(run.clock.step)
    reason = repeat(run)
    run.control.settle()
    finish(run, reason)
    run.leave(run.clock.step, reason)
    return reason


def repeat(run: Run) -> str:
    """Steps, and what is due between them, until there is a reason to end. Raises Diverged when no remedy helps."""
    while run.ended is None:
        try:
            step(run)
            between(run)
        except Diverged as trouble:
            recover(run, trouble)
    return run.ended


def between(run: Run) -> None:
    """What is due after a step."""
    run.journal.heartbeat.beat(run.clock.step)
    stop, seconds = run.control.exchange()
    for hook in run.step_hooks:
        if hook.rhythm.due(run.clock.step, seconds):
            hook.act(run.clock.step)
    if run.log.rhythm.due(run.clock.step, seconds):
        log(run)
    if run.examiner.rhythm.due(run.clock.step, seconds):
        evaluate(run)
    run.ended = _ending(run, stop, seconds)
    if run.ended is None and run.saving.due(run.clock.step, seconds):
        save(run)


def step(run: Run) -> None:
    """One optimizer step over one global batch, each sample weighing the same on whatever rank and in whatever micro-batch."""
    with run.log.watch.during("data"):
        batch = run.feed.batch(run.clock.step)
    run.journal.heartbeat.beat(run.clock.step)
    run.course.steer(run.optimizer.param_groups, run.lr(run.clock.step), run.clock.step)
    for param in run.params:
        param.grad = None
    loss = run.passes(batch)
    run.log.meter.add(loss, batch.weight, made=run.update(run.clock.step, loss, batch.weight))
    run.average(run.clock.step)
    run.clock.step += 1


def log(run: Run) -> None:
    """Report training since the last report. Raises Diverged once the loss is no longer a number."""
    steps, feed = run.clock.step - run.clock.logged, run.feed
    samples, before = feed.samples_after(run.clock.step), feed.samples_after(run.clock.logged)
    per_sample = run.data.train.tokens_per_sample
    values = run.log.read(lr=run.lr(run.clock.step - 1), steps=steps, count=(samples - before) * (per_sample or 1))
    run.clock.logged = run.clock.step
    run.journal.write(Metrics(step=run.clock.step, values=values, t=time.time()))
    run.journal.write(
        Progress(
            step=run.clock.step, epoch=feed.timeline.epochs_after(run.clock.step), samples=samples, tokens=samples * per_sample
        )
    )
    _check(values.get("train/loss", 0.0), run.clock.step)  # without one, every step was left out


def evaluate(run: Run) -> None:
    """Judge the validation split, and remember the model when it was never better."""
    with run.log.watch.during("evaluation"):
        _report(run, "validation")
        run.clock.evaluated = run.clock.step
        if run.metrics:
            with run.average.used():
                run.judge.look(run.clock.step, run.metrics, run.model.state_dict())
            run.growth(run.clock.step, run.metrics)
            run.course.look(run.clock.step, run.metrics)
        run.journal.phase("training")


def save(run: Run, *, wait: bool = False) -> None:
    """Raises Diverged instead of saving weights that are no longer numbers."""
    with run.log.watch.during("checkpoint"):
        if run.log.meter.weight:
            _check(run.log.meter.mean(), run.clock.step)
        checkpoint.save(run, wait=wait)
        run.journal.phase("training")


def finish(run: Run, reason: str) -> None:
    """What follows the last step: a checkpoint when the run was told to stop; else the last reports, judged and saved."""
    if reason == "preempted":
        save(run, wait=True)
        return
    if run.clock.logged < run.clock.step:
        log(run)
    if run.clock.evaluated < run.clock.step:
        evaluate(run)
    with run.log.watch.during("evaluation"):
        run.average.end(restored=_restore_best(run))
        _report(run, "test")
        run.replica.settle()
        run.explain(run.clock.step, reason)
    with run.log.watch.during("checkpoint"):
        checkpoint.save(run, final=True)


def _started(run: Run) -> Started:
    world, size = run.world, run.parameters
    return Started(
        step=run.clock.step, total_steps=run.clock.total, parameters=size, world_size=world.size, device=str(world.device)
    )


def _ending(run: Run, stop: bool, seconds: float) -> str | None:
    if run.clock.step >= run.clock.steps or seconds >= run.seconds:
        return "completed"
    if run.judge.patience_is_over:
        return "early_stopped"
    return "preempted" if stop else None


def _report(run: Run, split: Literal["validation", "test"]) -> None:
    """Judge one split and keep the values as the newest evaluation."""
    samples, limit = (run.data.test, None) if split == "test" else (run.data.validation, run.examiner.limit)
    if len(samples) == 0:
        return
    run.journal.phase("evaluating")
    run.replica.settle()
    says = run.journal.heartbeat.around(run.replica.outputs)
    with run.average.used():
        values = {f"{split}/{key}": value for key, value in run.examiner.judge(run.model, says, samples, limit).items()}
    run.metrics = {**(run.metrics if split == "test" else {}), **values}
    run.journal.write(Metrics(step=run.clock.step, values=values, t=time.time()))


def _restore_best(run: Run) -> bool:
    """Whether the model was given other weights than those of the last step."""
    other = bool(run.judge.weights) and run.judge.best_step != run.clock.step
    if other:
        run.model.load_state_dict(run.judge.weights)
        run.metrics = dict(run.judge.best_metrics)
        message = f"the run ends with the weights of step {run.judge.best_step}, its best evaluation"
        run.journal.write(Notice(level="info", code="best_restored", message=message, step=run.judge.best_step))
    return other


def _check(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise Diverged(f"the loss is {loss} by step {step}; lower optimizer.lr, add training.gradient_clipping or a warm-up")
