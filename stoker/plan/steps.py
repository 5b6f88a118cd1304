"""How many steps a run makes, and what it sees in them."""

from stoker.plan.known import Known
from stoker.plan.prediction import SamplesView, StepsView
from stoker.spec import Duration, JobSpec
from stoker.spec.derived.arithmetic import Batch, steps_per_epoch
from stoker.spec.derived.timeline import Timeline
from stoker.spec.training.dynamic_batch import BatchSchedule, OnPlateau


def samples_of(known: Known) -> SamplesView:
    return SamplesView(
        train=known.samples.train,
        validation=known.samples.validation,
        test=known.samples.test,
        tokens_per_sample=known.shape[0] if known.text else None,
        estimated=known.estimated,
    )


def steps_of(spec: JobSpec, samples: SamplesView, batch: Batch) -> StepsView:
    drop = spec.data.loader.drop_last
    per_epoch = steps_per_epoch(samples.train, batch.size, drop)
    seen = per_epoch * batch.size if drop else samples.train
    """Samples of one epoch."""
    match spec.training.dynamic_batch:
        case BatchSchedule() as schedule if per_epoch and spec.training.max_seconds is None:
            return _scheduled(spec, schedule, samples, per_epoch)
        case OnPlateau():
            return _growing(spec, samples, per_epoch, seen)
        case _:
            pass
    total, unknown = _total(spec, per_epoch, seen, samples.tokens_per_sample, batch.size)
    if total is None:
        return StepsView(
            per_epoch=per_epoch, total=None, unknown=unknown, epochs=None, samples=None, tokens=None, estimated=samples.estimated
        )
    whole, rest = divmod(total, per_epoch) if per_epoch else (0, 0)
    count = whole * seen + min(rest * batch.size, seen)
    return StepsView(
        per_epoch=per_epoch,
        total=total,
        unknown=None,
        epochs=total / per_epoch if per_epoch else None,
        samples=count,
        tokens=count * samples.tokens_per_sample if samples.tokens_per_sample else None,
        estimated=samples.estimated and spec.training.max_steps is None,
    )


def _scheduled(spec: JobSpec, schedule: BatchSchedule, samples: SamplesView, per_epoch: int) -> StepsView:
    """Of batches that change at places that are known ahead."""
    training, tokens = spec.training, samples.tokens_per_sample
    timeline = Timeline(samples.train, training.batch_size, spec.data.loader.drop_last)
    timeline.lay_out(schedule.changes, tokens or 0)
    length = Duration(steps=training.max_steps, epochs=training.epochs, tokens=training.max_tokens)
    total = timeline.steps_of(length, tokens or 0)
    count = None if total is None else timeline.samples_after(total)
    return StepsView(
        per_epoch=per_epoch,
        total=total,
        unknown=None,
        epochs=None if total is None else timeline.epochs_after(total),
        samples=count,
        tokens=count * tokens if tokens and count is not None else None,
        estimated=samples.estimated,
    )


def _growing(spec: JobSpec, samples: SamplesView, per_epoch: int, seen: int) -> StepsView:
    """Of batches that grow when validation stalls, which nobody knows ahead; how often samples are seen may be known."""
    training, tokens = spec.training, samples.tokens_per_sample
    count = None if training.epochs is None else training.epochs * seen
    return StepsView(
        per_epoch=per_epoch,
        total=training.max_steps,
        unknown=None if training.max_steps is not None else "training.dynamic_batch lets batches grow when validation stalls",
        epochs=None if training.epochs is None else float(training.epochs),
        samples=count,
        tokens=count * tokens if tokens and count is not None else None,
        estimated=samples.estimated,
    )


def _total(spec: JobSpec, per_epoch: int, seen: int, length: int | None, size: int) -> tuple[int | None, str | None]:
    """Steps of the run, or None and why nobody can know."""
    training = spec.training
    if training.max_steps is not None:
        return training.max_steps, None
    if per_epoch == 0:
        return None, "the training split does not fill one batch"
    if training.epochs is not None:
        return training.epochs * per_epoch, None
    if training.max_tokens is not None and length:
        whole, rest = divmod(training.max_tokens - 1, seen * length)
        return whole * per_epoch + rest // (size * length) + 1, None
    if training.max_seconds is not None:
        return None, "training.max_seconds ends the run by the clock"
    return None, "nothing in the spec ends the run by a count"
