"""What a spec and a data set's facts say of the model's input and output."""

from dataclasses import dataclass

from stoker.facts import ArrayFacts, DatasetFacts, ImageFacts, TableFacts, TextFacts
from stoker.spec import JobSpec
from stoker.spec.data.source import Csv, ImageFolder, Parquet
from stoker.spec.data.tokenizer import Bpe, CharTokenizer
from stoker.spec.task import CausalLM, Classification, Regression

BYTES_PER_BPE_TOKEN = 3
"""Rough length of a learned token in English text."""


@dataclass(frozen=True)
class Problem:
    """Sizes of what goes in and what comes out."""

    shape: tuple[int, ...]
    """Of one sample's input; one number, the window, for text."""
    outputs: int
    """Classes, numbers, or tokens of the vocabulary."""
    total: int
    """Samples in the data set; tokens for text."""
    text: bool
    estimated: bool
    """Whether the total is an estimate."""


def problem_of(spec: JobSpec, facts: DatasetFacts) -> Problem:
    content = facts.content
    match content:
        case TextFacts():
            return _text(spec, content)
        case TableFacts():
            shape: tuple[int, ...] = (_features(spec, content),)
            total = content.rows
        case ImageFacts():
            shape, total = _picture(spec, content), sum(content.counts.values())
        case ArrayFacts():
            source = spec.data.source
            stored = content.files[source.inputs].shape if source.type == "arrays" else (0,)
            shape, total = stored[1:] or (1,), stored[0]
    return Problem(shape, _outputs(spec, facts), total, False, False)


def _text(spec: JobSpec, content: TextFacts) -> Problem:
    window = (spec.data.sequence.length if spec.data.sequence else 128,)
    match spec.data.tokenizer:
        case CharTokenizer():
            return Problem(window, content.distinct_characters + 1, content.characters, True, False)
        case Bpe(vocab_size=size):
            return Problem(window, size, content.bytes // BYTES_PER_BPE_TOKEN, True, True)
        case _:
            return Problem(window, 256, content.bytes, True, False)


def _features(spec: JobSpec, content: TableFacts) -> int:
    source = spec.data.source
    if isinstance(source, Csv | Parquet) and source.columns is not None:
        return len(source.columns)
    match spec.task:
        case CausalLM() | Classification(target=None) | Regression(target=None):
            targets = 1
        case Classification() | Regression(target=str()):
            targets = 1
        case Regression(target=names):
            targets = len(names or ())
    return max(1, len(content.columns) - targets)


def _picture(spec: JobSpec, content: ImageFacts) -> tuple[int, int, int]:
    source = spec.data.source
    assert isinstance(source, ImageFolder)
    return (source.channels, source.height or content.height or 1, source.width or content.width or 1)


def _outputs(spec: JobSpec, facts: DatasetFacts) -> int:
    match spec.task:
        case Classification(num_classes=classes):
            return classes or 2
        case Regression(num_outputs=outputs):
            return outputs or 1
        case CausalLM():
            return 256
