"""What a plan starts from: every size of the problem that the spec and its data set make together, none missing."""

import math
from dataclasses import dataclass
from typing import TypeVar

from stoker.errors import Finding, SpecError
from stoker.facts import DatasetFacts, TextFacts
from stoker.spec import JobSpec
from stoker.spec.data import text_column
from stoker.spec.derived.arithmetic import Sizes, split_sizes, windows
from stoker.spec.derived.problem import Problem, problem_of

T = TypeVar("T")


def bytes_per_token(vocabulary: int) -> float:
    """Rough length of a learned token: 1 for bytes, growing with the vocabulary, 4.5 for a large one.

    Measured on English and Python; the true one is known once the tokenizer has learned.
    """
    return min(4.5, 1 + 0.75 * math.log2(max(vocabulary, 256) / 256))


@dataclass(frozen=True)
class Known:
    shape: tuple[int, ...]
    """Of one sample's input: (features,), (channels, height, width) or (tokens,)."""
    outputs: int
    """Classes, numbers, or tokens of the vocabulary."""
    samples: Sizes
    """Per split; windows for text."""
    items: int
    """Samples in memory; tokens for text."""
    text: bool
    estimated: bool
    """Whether the counts are an estimate."""
    vocabulary: int | None = None
    """Tokens that there are, where `outputs` says something of each text instead of its next token."""


def known_of(spec: JobSpec, facts: DatasetFacts) -> Known:
    """Raises SpecError `unresolved` where the spec leaves open what the data set cannot say either."""
    problem = problem_of(spec, facts)
    shape = _sure(problem.input_shape, "/data/source", "the shape of one sample")
    if problem.vocab_size is None or text_column(spec.data.source) is not None:
        outputs = _sure(problem.outputs, "/task", "how many outputs the model has")
        samples = _sure(problem.samples, "/data/source", "how many samples there are")
        text = problem.vocab_size is not None
        items = (samples.train + samples.validation + samples.test) * (shape[0] if text else 1)
        return Known(shape, outputs, samples, items, text, False, problem.vocab_size)
    return _text(spec, facts, problem, shape, problem.vocab_size)


def _text(spec: JobSpec, facts: DatasetFacts, problem: Problem, shape: tuple[int, ...], vocabulary: int) -> Known:
    tokens, estimated = problem.tokens, problem.tokens is None
    if tokens is None:
        content = facts.content if isinstance(facts.content, TextFacts) else None
        text = _sure(content, "/data/source", "how much text there is")
        tokens = split_sizes(int(text.bytes / bytes_per_token(vocabulary)), spec.data.split)
    length = shape[0]
    samples = Sizes(windows(tokens.train, length), windows(tokens.validation, length), windows(tokens.test, length))
    return Known(shape, vocabulary, samples, tokens.train + tokens.validation + tokens.test, True, estimated)


def _sure(value: T | None, pointer: str, what: str) -> T:
    if value is None:
        raise SpecError([Finding(pointer=pointer, code="unresolved", message=f"neither the spec nor the data set says {what}")])
    return value
