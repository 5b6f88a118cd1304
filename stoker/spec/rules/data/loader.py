"""Rules of `data.loader`."""

from collections.abc import Iterator

from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule


@rule(
    "streams-shuffled",
    reads=("/training/tbptt", "/data/loader"),
    message="a stateful run reads consecutive samples, and the loader shuffles them",
    hint="set `data.loader.shuffle: false`",
)
def streams_shuffled(case: Case) -> Iterator[Hit]:
    if case.stateful and case.spec.data.loader.shuffle:
        yield hit("/data/loader/shuffle")


@rule(
    "streams-uneven",
    reads=("/training/tbptt", "/data", "/task", "/training/batch_size"),
    message="a smaller last batch does not fill the {size} streams of a stateful run",
    hint="set `data.loader.drop_last: true`",
)
def streams_uneven(case: Case) -> Iterator[Hit]:
    samples, size = case.problem.samples, case.spec.training.batch_size
    if case.stateful and not case.spec.data.loader.drop_last and (samples is None or samples.train % size):
        yield hit("/data/loader/drop_last", size=size)


@rule(
    "drop-last-drops-all",
    reads=("/data", "/task", "/training/batch_size"),
    message="{samples} training samples do not fill one batch of {size}, and drop_last drops the rest",
    hint="set drop_last: false, or lower `training.batch_size`",
)
def drop_last_drops_all(case: Case) -> Iterator[Hit]:
    samples, size = case.problem.samples, case.spec.training.batch_size
    if samples is not None and case.spec.data.loader.drop_last and 0 < samples.train < size:
        yield hit("/data/loader/drop_last", samples=samples.train, size=size)


@rule(
    "pin-memory-needs-gpu",
    reads=("/data/loader", "/resources/device"),
    message="pinned memory speeds up copies to a GPU, and device is cpu",
    hint="remove pin_memory, or set `resources.device`",
)
def pinning_needs_gpu(case: Case) -> Iterator[Hit]:
    if case.spec.data.loader.pin_memory and case.spec.resources.device == "cpu":
        yield hit("/data/loader/pin_memory")
