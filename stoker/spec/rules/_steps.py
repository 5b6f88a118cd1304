"""How long things last: the run in optimizer steps, and every duration of a spec."""

from collections.abc import Callable, Iterator

from stoker.spec.base import Duration
from stoker.spec.debug import Debug
from stoker.spec.derived.arithmetic import Sizes
from stoker.spec.derived.timeline import Timeline
from stoker.spec.job import JobSpec
from stoker.spec.training import LENGTHS, Training
from stoker.spec.training.dynamic_batch import BatchSchedule, OnPlateau

DURATION_READS = tuple(f"/training/{key}" for key in LENGTHS)
RUN_READS = (*DURATION_READS, "/training/batch_size", "/data", "/task")
"""What the number of steps of the run follows from."""


def lengths(training: Training) -> list[str]:
    """Keys that say how long training lasts; a run has exactly one."""
    return [key for key in LENGTHS if getattr(training, key) is not None]


def total_steps(spec: JobSpec, samples: Sizes | None, steps_of: Callable[[Duration], int | None]) -> int | None:
    """Optimizer steps of the run, where arithmetic knows them; `steps_of` counts a duration while batches keep their size."""
    training = spec.training
    if len(lengths(training)) != 1 or training.max_seconds is not None:
        return None
    length = Duration(steps=training.max_steps, epochs=training.epochs, tokens=training.max_tokens)
    match training.dynamic_batch:
        case OnPlateau():
            return training.max_steps
        case BatchSchedule() if training.max_steps is None:
            return _scheduled(spec, samples, length)
        case _:
            return steps_of(length)


def _scheduled(spec: JobSpec, samples: Sizes | None, length: Duration) -> int | None:
    """A length in steps whose batches change along the run."""
    training = spec.training
    if samples is None or samples.train < 1 or not isinstance(training.dynamic_batch, BatchSchedule):
        return None
    tokens = 0 if spec.data.sequence is None else spec.data.sequence.length
    try:
        timeline = Timeline(samples.train, training.batch_size, spec.data.loader.drop_last)
        timeline.lay_out(training.dynamic_batch.changes, tokens)
    except ValueError:  # another rule says so
        return None
    return timeline.steps_of(length, tokens)


def durations(spec: JobSpec) -> Iterator[tuple[str, Duration]]:
    """Every duration of a spec and its pointer."""
    yield "/evaluation/interval", spec.evaluation.interval
    yield "/checkpoint/interval", spec.checkpoint.interval
    yield "/logging/interval", spec.logging.interval
    for place, length in spec.schedule.lengths():
        yield f"/schedule/{place}", length
    yield from averaging(spec.training)
    yield from _inspections(spec.debug)
    yield from _milestones(spec.training)


def _milestones(training: Training) -> Iterator[tuple[str, Duration]]:
    """When the batch size changes."""
    if isinstance(training.dynamic_batch, BatchSchedule):
        for index, milestone in enumerate(training.dynamic_batch.milestones):
            yield f"/training/dynamic_batch/milestones/{index}/after", milestone.after


def _inspections(debug: Debug) -> Iterator[tuple[str, Duration]]:
    """How often the inside of a run is looked at."""
    if debug.histograms is not None:
        yield "/debug/histograms/interval", debug.histograms.interval
    if debug.gradients is not None:
        yield "/debug/gradients/interval", debug.gradients.interval
    for index, probe in enumerate(debug.probes):
        yield f"/debug/probes/{index}/interval", probe.interval


def averaging(training: Training) -> Iterator[tuple[str, Duration]]:
    """When weights are averaged."""
    if training.ema is not None and training.ema.start is not None:
        yield "/training/ema/start", training.ema.start
    if training.swa is not None:
        yield "/training/swa/start", training.swa.start
        yield "/training/swa/every", training.swa.every
