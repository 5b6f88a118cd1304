"""Rules of `data.split`."""

import math
from collections.abc import Iterator

from stoker.spec.data import Text
from stoker.spec.derived.arithmetic import Sizes
from stoker.spec.derived.problem import class_counts
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.task import Classification
from stoker.text import shown


@rule(
    "streams-split",
    reads=("/training/tbptt", "/data"),
    message="a stateful run reads consecutive samples, and split strategy {strategy} takes some from between them",
    hint="set `data.split.strategy: contiguous`",
)
def streams_split(case: Case) -> Iterator[Hit]:
    if case.stateful and not isinstance(case.spec.data.source, Text) and case.spec.data.split.strategy != "contiguous":
        yield hit("/data/split/strategy", ("contiguous",), strategy=case.spec.data.split.strategy)


@rule(
    "split-fits",
    reads=("/data/source", "/task", "/data/split"),
    message="split strategy {strategy} is not possible for {what}",
    hint="use {fitting}, or leave it out",
)
def split_fits(case: Case) -> Iterator[Hit]:
    strategy = case.spec.data.split.strategy
    if isinstance(case.spec.data.source, Text):
        if strategy not in (None, "contiguous"):
            yield hit("/data/split/strategy", ("contiguous",), strategy=strategy, what="text", fitting="contiguous")
    elif strategy == "stratified" and not isinstance(case.spec.task, Classification):
        holes = {"strategy": strategy, "what": case.spec.task.type, "fitting": "random, contiguous"}
        yield hit("/data/split/strategy", ("random", "contiguous"), **holes)


@rule(
    "rare-class",
    reads=("/data/source", "/task", "/data/split"),
    message="class {name} has {count} samples, fewer than the {parts} parts of a stratified split",
    hint="set `data.split.strategy: random`, or add samples",
)
def rare_class(case: Case) -> Iterator[Hit]:
    counts, split = class_counts(case.spec, case.content), case.spec.data.split
    if split.strategy != "stratified" or not counts:
        return
    parts = 1 + (split.validation > 0) + (split.test > 0)
    name, least = min(counts.items(), key=lambda item: item[1])
    if least < parts:
        yield hit("/data/split/strategy", name=shown(name), count=least, parts=parts)


@rule(
    "nothing-left",
    reads=("/data", "/task"),
    message="validation and test take {held} of the data set, so nothing is left to train on",
    hint="lower `data.split.validation` and `test`",
)
def nothing_left(case: Case) -> Iterator[Hit]:
    split, samples = case.spec.data.split, case.problem.samples
    if split.validation + split.test >= 1 or (
        samples is not None and samples.train < 1 and not isinstance(case.spec.data.source, Text)
    ):
        yield hit("/data/split", held=f"{split.validation + split.test:g}")


@rule(
    "part-empty",
    reads=("/data", "/task"),
    message="{share} of {total} samples is 0 samples",
    hint="raise `data.split.{key}` to at least {least}, or set it to 0",
)
def part_empty(case: Case) -> Iterator[Hit]:
    split, samples = case.spec.data.split, case.problem.samples
    if samples is None or samples.train < 1:
        return
    for key, share, count in (("validation", split.validation, samples.validation), ("test", split.test, samples.test)):
        if share > 0 and count == 0:
            yield hit(f"/data/split/{key}", key=key, share=f"{share:g}", total=_total(samples), least=_least(case, samples))


def _total(sizes: Sizes) -> int:
    return sizes.train + sizes.validation + sizes.test


def _least(case: Case, samples: Sizes) -> str:
    """The smallest share that holds out one sample, rounded up to four decimals; of text, the tokens of one window."""
    tokens, sequence = case.problem.tokens, case.spec.data.sequence
    needed, total = (1, _total(samples)) if tokens is None or sequence is None else (sequence.length + 1, _total(tokens))
    return f"{math.ceil((needed - 0.5) / total * 10_000) / 10_000:g}"
