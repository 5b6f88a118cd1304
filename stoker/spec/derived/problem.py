"""The learning problem that a spec and its data set make together: shapes and counts, by arithmetic from facts."""

import math
from dataclasses import dataclass
from typing import assert_never

from stoker.facts import ArrayFacts, DatasetFacts, ImageFacts, TableFacts, TextFacts, WeightFacts
from stoker.spec.data import (
    Arrays,
    Bpe,
    ByteTokenizer,
    CharTokenizer,
    Csv,
    FileTokenizer,
    ImageFolder,
    Parquet,
    Text,
    reads_text,
    text_column,
)
from stoker.spec.data.tokenizer import Tokenizer
from stoker.spec.derived.arithmetic import Sizes, split_sizes, windows
from stoker.spec.job import JobSpec
from stoker.spec.loss import head_width
from stoker.spec.task import CausalLM, Classification, Generation, MaskedLM, Multilabel, Regression
from stoker.spec.task.multi_task import MultiTask

BYTE_VOCABULARY = 256


@dataclass(frozen=True)
class Problem:
    """What is unknown is None, never guessed."""

    input_shape: tuple[int, ...] | None
    """One sample without the batch: (features,), (channels, height, width), or (tokens,)."""
    outputs: int | None
    """Width of the head: classes, labels, numbers with their variances if any, or the vocabulary."""
    vocab_size: int | None
    """Rows of the token embedding, for text."""
    samples: Sizes | None
    """Samples per split; for text, windows."""
    tokens: Sizes | None
    """Tokens per split, for text; None where their count is known only once the text is read."""


def problem_of(spec: JobSpec, facts: DatasetFacts | None) -> Problem:
    """Shapes and counts of a spec; with facts, all that can be known before the run."""
    content = None if facts is None else facts.content
    vocab = _vocabulary(spec.data.tokenizer, content) if reads_text(spec.data.source) else None
    if vocab is not None and lacks_token(spec):
        vocab += 1
    tokens = _tokens(spec, content)
    shape = _input_shape(spec, content)
    return Problem(shape, _outputs(spec, vocab, shape), vocab, _samples(spec, content, tokens), tokens)


def lacks_token(spec: JobSpec) -> bool:
    """Whether the task needs a token that the tokenizer does not have: what stands for hidden ones, or fills up short texts."""
    known = spec.data.tokenizer
    mask, pad = (known.mask_id, known.pad_id) if isinstance(known, FileTokenizer) else (None, None)
    if isinstance(spec.task, MaskedLM):
        return mask is None
    return text_column(spec.data.source) is not None and pad is None


def _outputs(spec: JobSpec, vocab: int | None, shape: tuple[int, ...] | None) -> int | None:
    match spec.task:
        case Classification(num_classes=classes):
            return classes
        case Multilabel(num_labels=labels):
            return labels
        case Regression(num_outputs=outputs):
            return None if outputs is None else head_width(spec.loss, outputs)
        case CausalLM() | MaskedLM():
            return vocab
        case MultiTask(widths=widths):
            return None if widths is None else sum(widths)
        case Generation():
            return None if shape is None else math.prod(shape)
        case _:
            assert_never(spec.task)


Content = TableFacts | TextFacts | ImageFacts | ArrayFacts | WeightFacts | None


def _input_shape(spec: JobSpec, content: Content) -> tuple[int, ...] | None:
    match spec.data.source:
        case Csv(columns=columns, text=None) | Parquet(columns=columns, text=None):
            return None if columns is None else (len(columns),)
        case Text() | Csv() | Parquet():
            return None if spec.data.sequence is None else (spec.data.sequence.length,)
        case ImageFolder(channels=channels, height=height, width=width):
            return None if height is None or width is None else (channels, height, width)
        case Arrays(inputs=name):
            file = content.files.get(name) if isinstance(content, ArrayFacts) else None
            return None if file is None or len(file.shape) < 2 else file.shape[1:]
        case _:
            assert_never(spec.data.source)


def _vocabulary(tokenizer: Tokenizer | None, content: Content) -> int | None:
    match tokenizer:
        case None | ByteTokenizer():
            return BYTE_VOCABULARY
        case CharTokenizer():
            return content.distinct_characters + 1 if isinstance(content, TextFacts) else None
        case Bpe(vocab_size=size):
            return size
        case FileTokenizer(vocab_size=rows):
            return rows
        case _:
            assert_never(tokenizer)


def _tokens(spec: JobSpec, content: Content) -> Sizes | None:
    if not isinstance(spec.data.source, Text) or not isinstance(content, TextFacts):
        return None
    match spec.data.tokenizer:
        case None | ByteTokenizer():
            return split_sizes(content.bytes, spec.data.split)
        case CharTokenizer():
            return split_sizes(content.characters, spec.data.split)
        case Bpe() | FileTokenizer():
            return None
        case _:
            assert_never(spec.data.tokenizer)


def _samples(spec: JobSpec, content: Content, tokens: Sizes | None) -> Sizes | None:
    if isinstance(spec.data.source, Text):
        if tokens is None or spec.data.sequence is None:
            return None
        length = spec.data.sequence.length
        return Sizes(windows(tokens.train, length), windows(tokens.validation, length), windows(tokens.test, length))
    total = total_samples(spec, content)
    return None if total is None else split_sizes(total, spec.data.split)


def total_samples(spec: JobSpec, content: Content) -> int | None:
    """Rows, pictures or entries of the inputs array; None for text and where facts do not say."""
    match content:
        case TableFacts(rows=rows):
            return rows
        case ImageFacts(counts=counts):
            return sum(counts.values())
        case ArrayFacts(files=files):
            source = spec.data.source
            file = files.get(source.inputs) if isinstance(source, Arrays) else None
            return file.shape[0] if file is not None and file.shape else None
        case TextFacts() | WeightFacts() | None:
            return None
        case _:
            assert_never(content)


def class_counts(spec: JobSpec, content: Content) -> dict[str, int] | None:
    """Samples per class, for classification, where facts counted them."""
    if not isinstance(spec.task, Classification):
        return None
    match content:
        case TableFacts(columns=columns):
            return next((column.counts for column in columns if column.name == spec.task.target), None)
        case ImageFacts(counts=counts):
            return counts
        case ArrayFacts(files=files):
            source = spec.data.source
            file = files.get(source.targets) if isinstance(source, Arrays) else None
            return None if file is None else file.counts
        case TextFacts() | WeightFacts() | None:
            return None
        case _:
            assert_never(content)


def distinct_values(name: str, content: Content) -> int | None:
    """Of a column of a table."""
    columns = content.columns if isinstance(content, TableFacts) else ()
    return next((column.distinct for column in columns if column.name == name), None)


def class_total(spec: JobSpec, content: Content) -> int | None:
    """Distinct classes in the data set."""
    match content:
        case TableFacts(columns=columns) if isinstance(spec.task, Classification):
            return next((column.distinct for column in columns if column.name == spec.task.target), None)
        case ImageFacts(counts=counts):
            return len(counts)
        case ArrayFacts(files=files) if isinstance(spec.data.source, Arrays):
            file = files.get(spec.data.source.targets)
            return None if file is None else file.distinct
        case _:
            return None
