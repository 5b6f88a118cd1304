"""From a data spec to three parts of samples, and what must be remembered to treat new rows the same way."""

from collections.abc import Sequence as Many
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from stoker.spec.data import ByteTokenizer, Data, Sequence
from stoker.spec.derived.arithmetic import split_sizes
from worker.trainer.data.codec import Codec
from worker.trainer.data.description import Answer, Description
from worker.trainer.data.samples import Samples, TensorSamples
from worker.trainer.data.sequence import cut_windows
from worker.trainer.data.source import Table, Wanted, read_source
from worker.trainer.data.split import Parts, split_rows
from worker.trainer.data.step import Fitted, Step, apply_steps, fit_steps
from worker.trainer.data.steps import of_numbers, of_stream, of_texts
from worker.trainer.data.tokenizer import Tokenization
from worker.trainer.errors import DataProblem, SpecProblem
from worker.trainer.runtime.world import World

Row = TypeVar("Row", str, npt.NDArray[np.int32])


@dataclass(frozen=True)
class Dataset:
    train: Samples
    validation: Samples
    test: Samples
    about: Description


@dataclass(frozen=True)
class _Context:
    """What steps are fitted with besides training rows."""

    spec: Data
    home: Path
    world: World
    learned: tuple[Fitted, ...]
    inherited: Codec | None


@dataclass(frozen=True)
class _Targets:
    """What a task predicts, as a tensor with a row per sample."""

    values: torch.Tensor
    outputs: int
    classes: tuple[str | int, ...] = ()
    answers: tuple[Answer, ...] = ()


def build_data(
    spec: Data,
    wanted: Wanted | None,
    classes: int | None,
    home: Path,
    *,
    seed: int,
    world: World,
    learned: Description | None,
    inherited: Codec | None = None,
) -> Dataset:
    """Reads `home/data/<dataset>`, splits it, fits the steps on the training part and applies them to all three.

    `learned`: what an earlier attempt saved; its steps are not fitted again. `inherited`: the tokenizer of another model that
    this one builds on; byte pairs are then not learned where there are as many. Raises DataProblem or SpecProblem.
    """
    root = home / "data" / spec.source.dataset
    if not root.is_dir():
        raise DataProblem(f"data set {spec.source.dataset} is not in the workspace")
    content = read_source(spec.source, root, wanted)
    context = _Context(spec, home, world, () if learned is None else learned.steps, inherited)
    if isinstance(content, bytes):
        if wanted is not None:
            raise SpecProblem("data.source.type: text is for task causal_lm only")
        return _stream(context, content.decode())
    assert wanted is not None, "read_source gives a table only where a target is wanted"
    if content.texts is None:
        return _numbers(context, content, wanted, classes, seed)
    return _texts(context, content, content.texts, wanted, classes, seed)


def _numbers(context: _Context, table: Table, wanted: Wanted, classes: int | None, seed: int) -> Dataset:
    if context.spec.tokenizer is not None or context.spec.sequence is not None:
        raise SpecProblem("data.tokenizer and data.sequence are for text only; remove them")
    targets = _packed(table, wanted) if wanted.parts else _targets(table.targets, wanted, classes)
    rows = split_rows(context.spec.split, len(table.inputs), targets.values if wanted.classes else None, seed)
    inputs = torch.from_numpy(table.inputs)
    parts = [inputs.index_select(0, part) for part in rows.each]
    return _labelled(parts, rows, targets, table, context.learned, of_numbers(context.spec))


def _texts(context: _Context, table: Table, texts: tuple[str, ...], wanted: Wanted, classes: int | None, seed: int) -> Dataset:
    """A text is a sample."""
    _without_normalization(context.spec)
    if wanted.parts:
        raise SpecProblem("data.source.text: task multi_task learns from columns of numbers")
    targets = _targets(table.targets, wanted, classes)
    rows = split_rows(context.spec.split, len(texts), targets.values if wanted.classes else None, seed)
    parts = [[texts[row] for row in part.tolist()] for part in rows.each]
    steps = of_texts(context.spec, texts, context.home, context.world, context.inherited)
    return _labelled(parts, rows, targets, table, context.learned, steps)


def _stream(context: _Context, text: str) -> Dataset:
    """Windows of a text are samples. Streams of bytes are split by tokens, others by characters, since tokens may be learned."""
    spec, windows = context.spec, context.spec.sequence or Sequence()
    _without_normalization(spec)
    if spec.split.strategy not in (None, "contiguous"):
        raise SpecProblem("data.split.strategy: text is split contiguous; a shuffled text would leak into what judges it")
    train, *held_out = _cut(text, spec)
    wanted = of_stream(spec, text, context.home, context.world, context.inherited)
    steps, ids = fit_steps(wanted, (train,), context.learned)
    if isinstance(spec.tokenizer or ByteTokenizer(), ByteTokenizer):
        streams = _cut(apply_steps(steps, (text,))[0], spec)
    else:
        streams = [*ids, *apply_steps(steps, held_out)]
    parts = [cut_windows(windows, stream) for stream in streams]
    if len(parts[0]) == 0:
        raise DataProblem(f"data.sequence.length: the training text has fewer than {windows.length + 1} tokens; lower it")
    (tokens,) = steps
    assert isinstance(tokens, Tokenization), "the only step of a stream"
    train_part, validation, test = parts
    return Dataset(train_part, validation, test, Description((windows.length,), tokens.codec.rows, steps=steps))


def _labelled(
    parts: Many[Any], rows: Parts, targets: _Targets, table: Table, learned: tuple[Fitted, ...], wanted: tuple[Step, ...]
) -> Dataset:
    """`parts`: numbers or texts of each part, which `wanted` are fitted on and applied to."""
    values = _with_weights(targets.values, table.weights)
    told = [values.index_select(0, part) for part in rows.each]
    if table.weights is not None and not bool(told[0][:, -1].any()):
        raise DataProblem("data.sample_weight_column: every training sample has weight 0, so nothing would be learned")
    steps, train = fit_steps(wanted, parts[0], learned)
    inputs = [train, *(apply_steps(steps, part) for part in parts[1:])]
    train_part, validation, test = (TensorSamples(*both) for both in zip(inputs, told, strict=True))
    about = Description(tuple(train.shape[1:]), targets.outputs, targets.classes, table.columns, steps, targets.answers)
    return Dataset(train_part, validation, test, about)


def _without_normalization(spec: Data) -> None:
    if spec.normalization is not None:
        raise SpecProblem("data.normalization is for numbers; remove it for text")


def _cut(values: Row, spec: Data) -> list[Row]:
    """Training, validation and test part, one after the other."""
    sizes = split_sizes(len(values), spec.split)
    held_out = sizes.train + sizes.validation
    return [values[: sizes.train], values[sizes.train : held_out], values[held_out:]]


def _with_weights(targets: torch.Tensor, weights: npt.NDArray[np.float32] | None) -> torch.Tensor:
    """Targets as they are, or (n, k + 1) numbers with the weights; classes are small enough to be exact in float32."""
    if weights is None:
        return targets
    return torch.cat((targets.float().reshape(len(targets), -1), torch.from_numpy(weights)[:, None]), 1)


def _packed(table: Table, wanted: Wanted) -> _Targets:
    """Targets of several tasks as columns of numbers: a class as its index, exact in float32."""
    answers, columns = list[Answer](), list[torch.Tensor]()
    for part, values in zip(wanted.parts, table.parts, strict=True):
        try:
            found = _targets(values, part, part.count)
        except DataProblem as error:
            raise DataProblem(f"task.tasks: {part.name}: {error}") from error
        if part.count is not None and part.count != found.outputs:
            raise SpecProblem(
                f"task.tasks: {part.name}: num_outputs is {part.count}, but there are {found.outputs} target columns"
            )
        answers.append(Answer(part.name, found.outputs, found.classes))
        columns.append(found.values.float().reshape(len(found.values), -1))
    return _Targets(torch.cat(columns, 1), sum(answer.outputs for answer in answers), answers=tuple(answers))


def _targets(values: npt.NDArray[np.generic], wanted: Wanted, classes: int | None) -> _Targets:
    if not wanted.classes:
        return _Targets(torch.from_numpy(values.astype(np.float32)), values.shape[1])
    found = np.unique(values)
    outputs = classes if classes is not None else len(found)
    if values.dtype.kind == "i" and found[0] >= 0 and found[-1] < outputs:
        return _Targets(torch.from_numpy(values.astype(np.int64)), outputs, tuple(range(outputs)))
    if len(found) > outputs:
        raise DataProblem(f"task.num_classes is {outputs}, but the data set has {len(found)} classes; raise it or leave it out")
    names = tuple(name.item() for name in found)
    return _Targets(torch.from_numpy(np.searchsorted(found, values).astype(np.int64)), outputs, names)
