"""What averages of the weights ask of the rest of the run."""

from collections.abc import Iterator

from stoker.spec.rules._rule import Case, Hit, Rule, hit
from stoker.spec.rules.lengths import RUN_READS, averaging, steps_of, total_steps


def one_average(case: Case) -> Iterator[Hit]:
    if case.spec.training.ema is not None and case.spec.training.swa is not None:
        yield hit("/training/swa")


def average_in_seconds(case: Case) -> Iterator[Hit]:
    for pointer, length in averaging(case.spec.training):
        if length.seconds is not None:
            yield hit(f"{pointer}/seconds", path=pointer[1:].replace("/", "."))


def average_never_begins(case: Case) -> Iterator[Hit]:
    training, total = case.spec.training, total_steps(case)
    starts = {
        "/training/ema/start": None if training.ema is None else training.ema.start,
        "/training/swa/start": None if training.swa is None else training.swa.start,
    }
    for pointer, start in starts.items():
        steps = None if start is None else steps_of(case, start)
        if steps is not None and total is not None and steps > total:
            yield hit(pointer, start=steps, total=total)


AVERAGES = ("/training/ema", "/training/swa")

AVERAGE_RULES = (
    Rule(
        "one-average", "R", AVERAGES, one_average,
        "`training.ema` and `training.swa` both take the place of the weights", "keep one of them",
    ),
    Rule(
        "average-in-seconds", "R", AVERAGES, average_in_seconds,
        "`{path}` is in seconds, and a repeated run would average other weights", "set it in steps or epochs",
    ),
    Rule(
        "average-never-begins", "R", (*AVERAGES, *RUN_READS), average_never_begins,
        "the average begins after {start} steps, and the run has {total}", "start earlier or train longer",
    ),
)  # fmt: skip
