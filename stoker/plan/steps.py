"""How many steps a run makes, and what it sees in them."""

from stoker.plan.known import Known
from stoker.plan.prediction import SamplesView, StepsView
from stoker.spec import JobSpec
from stoker.spec.arithmetic import Batch, steps_per_epoch


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
