"""Rules of `training.ema` and `training.swa`."""

from collections.abc import Iterator

from stoker.spec.distributed import LocalSGD
from stoker.spec.model import GAN
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.rules._steps import RUN_READS, averaging


@rule(
    "spectral-norm-average",
    reads=("/regularization/spectral_norm", "/training"),
    message="spectral_norm bounds the weights of the last step, and `training.{name}` judges an average of many",
    hint="keep one of them",
)
def bound_average(case: Case) -> Iterator[Hit]:
    spectral = case.spec.regularization.spectral_norm
    rival = isinstance(case.spec.model, GAN) and spectral is not None and (spectral.pattern or "").startswith("discriminator.")
    if spectral is not None and not rival:  # of a gan the generator is averaged, and nothing else
        for name in ("ema", "swa"):
            if getattr(case.spec.training, name) is not None:
                yield hit(f"/training/{name}", name=name)


@rule(
    "local-sgd-averages",
    reads=("/distributed", "/training"),
    message="`{name}` averages the weights of one model over steps, and with local_sgd each rank has its own",
    hint="remove `training.{name}`, or use strategy: ddp",
)
def averages_apart(case: Case) -> Iterator[Hit]:
    training = case.spec.training
    if isinstance(case.spec.distributed, LocalSGD):
        for name in ("ema", "swa"):
            if getattr(training, name) is not None:
                yield hit(f"/training/{name}", name=name)


@rule(
    "one-average",
    reads=("/training/ema", "/training/swa"),
    message="`training.ema` and `training.swa` both take the place of the weights",
    hint="keep one of them",
)
def one_average(case: Case) -> Iterator[Hit]:
    if case.spec.training.ema is not None and case.spec.training.swa is not None:
        yield hit("/training/swa")


@rule(
    "average-in-seconds",
    reads=("/training/ema", "/training/swa"),
    message="`{path}` is in seconds, and a repeated run would average other weights",
    hint="set it in steps or epochs",
)
def average_in_seconds(case: Case) -> Iterator[Hit]:
    for pointer, length in averaging(case.spec.training):
        if length.seconds is not None:
            yield hit(f"{pointer}/seconds", path=pointer[1:].replace("/", "."))


@rule(
    "average-never-begins",
    reads=("/training/ema", "/training/swa", *RUN_READS),
    message="averaging starts after {start} steps, and the run has {total}",
    hint="start it at step {total} or before, or train longer",
)
def average_never_begins(case: Case) -> Iterator[Hit]:
    training, total = case.spec.training, case.total_steps
    starts = {
        "/training/ema/start": None if training.ema is None else training.ema.start,
        "/training/swa/start": None if training.swa is None else training.swa.start,
    }
    for pointer, start in starts.items():
        steps = None if start is None else case.steps_of(start)
        if steps is not None and total is not None and steps > total:
            yield hit(pointer, start=steps, total=total)
