"""From a data spec to three parts of samples and what must be remembered to treat new inputs alike."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from stoker.spec.data import Bpe, ByteTokenizer, Data, Sequence, Tokenizer
from stoker.spec.derived.arithmetic import split_sizes
from worker.trainer.data.codec import Codec
from worker.trainer.data.description import Answer, Description
from worker.trainer.data.normalization import Scaling, fit_scaling
from worker.trainer.data.samples import Samples
from worker.trainer.data.sequence import cut_windows
from worker.trainer.data.source import Table, Wanted, read_source
from worker.trainer.data.split import split_rows
from worker.trainer.data.tokenizer import learn_codec, load_codec
from worker.trainer.errors import DataProblem, SpecProblem
from worker.trainer.runtime.world import World


@dataclass(frozen=True)
class Dataset:
    train: Samples
    validation: Samples
    test: Samples
    about: Description


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
    """Read `home/data/<dataset>` and make it ready. `learned` is what an earlier attempt saved; nothing is learned again then.

    `inherited`: the tokens of another model that this one builds on. Byte pairs are then not learned anew, where they are as many.
    Raises DataProblem or SpecProblem.
    """
    root = home / "data" / spec.source.dataset
    if not root.is_dir():
        raise DataProblem(f"data set {spec.source.dataset} is not in the workspace")
    content = read_source(spec.source, root, wanted)
    known = _codec(spec.tokenizer, learned, inherited)
    if isinstance(content, bytes):
        if wanted is not None:
            raise SpecProblem("data.source.type: text is for task causal_lm only")
        return _text(spec, content.decode(), home, world, known)
    assert wanted is not None, "read_source gives a table only where a target is wanted"
    if content.texts is not None:
        return _texts(spec, content, content.texts, wanted, classes, seed=seed, home=home, world=world, codec=known)
    return _table(spec, content, wanted, classes, seed, learned)


def _table(spec: Data, table: Table, wanted: Wanted, classes: int | None, seed: int, learned: Description | None) -> Dataset:
    if spec.tokenizer is not None or spec.sequence is not None:
        raise SpecProblem("data.tokenizer and data.sequence are for text only; remove them")
    answers, targets = _packed(table, wanted)
    if answers:
        names, outputs = tuple[str | int, ...](), sum(answer.outputs for answer in answers)
    else:
        names, targets, outputs = _targets(table.targets, wanted, classes)
    everything = Samples(torch.from_numpy(table.inputs), _with_weights(targets, table.weights))
    parts = split_rows(spec.split, len(everything), targets if wanted.classes else None, seed)
    train = everything.take(parts.train)
    if table.weights is not None and not bool(train.targets[:, -1].any()):
        raise DataProblem("data.sample_weight_column: every training sample has weight 0, so nothing would be learned")
    about = Description(tuple(train.inputs.shape[1:]), outputs, names, table.columns, answers=answers)
    if spec.normalization is not None:
        scaling = (
            learned.scaling
            if learned is not None and learned.scaling is not None
            else fit_scaling(spec.normalization, train.inputs)
        )
        about = replace(about, scaling=scaling)
    train, validation, test = (
        _scaled(everything.take(rows), about.scaling) for rows in (parts.train, parts.validation, parts.test)
    )
    return Dataset(train, validation, test, about)


def _texts(
    spec: Data,
    table: Table,
    texts: tuple[str, ...],
    wanted: Wanted,
    classes: int | None,
    *,
    seed: int,
    home: Path,
    world: World,
    codec: Codec | None,
) -> Dataset:
    """A text is a sample. Byte pairs are learned from those of the training split alone."""
    if spec.normalization is not None:
        raise SpecProblem("data.normalization is for numbers; remove it for text")
    if wanted.parts:
        raise SpecProblem("data.source.text: task multi_task learns from columns of numbers")
    names, targets, outputs = _targets(table.targets, wanted, classes)
    parts = split_rows(spec.split, len(texts), targets if wanted.classes else None, seed)
    if codec is None:
        train = "\n".join(texts[row] for row in parts.train.tolist())
        tokenizer = spec.tokenizer or ByteTokenizer()
        codec = _shared(tokenizer, "".join(texts), train, home, world)
    about = Description(((spec.sequence or Sequence()).length,), outputs, names, codec=codec, padded=True)
    everything = Samples(about.ids(texts), _with_weights(targets, table.weights))
    train_part, validation, test = (everything.take(rows) for rows in (parts.train, parts.validation, parts.test))
    if table.weights is not None and not bool(train_part.targets[:, -1].any()):
        raise DataProblem("data.sample_weight_column: every training sample has weight 0, so nothing would be learned")
    return Dataset(train_part, validation, test, about)


def _with_weights(targets: torch.Tensor, weights: npt.NDArray[np.float32] | None) -> torch.Tensor:
    """Targets as they are, or (n, k + 1) numbers with the weights; classes are small enough to be exact in float32."""
    if weights is None:
        return targets
    return torch.cat((targets.float().reshape(len(targets), -1), torch.from_numpy(weights)[:, None]), 1)


def _scaled(samples: Samples, scaling: Scaling | None) -> Samples:
    return samples if scaling is None else replace(samples, inputs=scaling.apply(samples.inputs))


def _packed(table: Table, wanted: Wanted) -> tuple[tuple[Answer, ...], torch.Tensor]:
    """What several tasks want to know, and their targets as columns of numbers: a class as its index, exact in float32."""
    answers, columns = [], [torch.empty(len(table.inputs), 0)]
    for part, values in zip(wanted.parts, table.parts, strict=True):
        try:
            names, targets, outputs = _targets(values, part, part.count)
        except DataProblem as error:
            raise DataProblem(f"task.tasks: {part.name}: {error}") from error
        if part.count is not None and part.count != outputs:
            raise SpecProblem(f"task.tasks: {part.name}: num_outputs is {part.count}, but there are {outputs} target columns")
        answers.append(Answer(part.name, outputs, names))
        columns.append(targets.float().reshape(len(targets), -1))
    return tuple(answers), torch.cat(columns, 1)


def _targets(
    values: npt.NDArray[np.generic], wanted: Wanted, classes: int | None
) -> tuple[tuple[str | int, ...], torch.Tensor, int]:
    """Names of the classes, targets, and how many outputs they need."""
    if not wanted.classes:
        return (), torch.from_numpy(values.astype(np.float32)), values.shape[1]
    found = np.unique(values)
    if values.dtype.kind == "i" and found[0] >= 0 and found[-1] < (classes if classes is not None else len(found)):
        outputs = classes if classes is not None else len(found)
        return tuple(range(outputs)), torch.from_numpy(values.astype(np.int64)), outputs
    outputs = classes if classes is not None else len(found)
    if len(found) > outputs:
        raise DataProblem(f"task.num_classes is {outputs}, but the data set has {len(found)} classes; raise it or leave it out")
    names = tuple(name.item() for name in found)
    return names, torch.from_numpy(np.searchsorted(found, values).astype(np.int64)), outputs


def _codec(spec: Tokenizer | None, learned: Description | None, inherited: Codec | None) -> Codec | None:
    """The tokens that are known already."""
    if learned is not None:
        return learned.codec
    fits = isinstance(spec, Bpe) and inherited is not None and inherited.rows == spec.vocab_size
    return inherited if fits else None


def _shared(spec: Tokenizer, everything: str, train: str, home: Path, world: World) -> Codec:
    """What the first rank learns or reads, on every rank."""
    return load_codec(world.share(learn_codec(spec, everything, train, home).dump() if world.is_lead else None))


def _text(spec: Data, text: str, home: Path, world: World, codec: Codec | None) -> Dataset:
    """Byte and character streams are split by tokens; for byte pairs, which are learned, the text is."""
    if spec.normalization is not None:
        raise SpecProblem("data.normalization is for numbers; remove it for text")
    if spec.split.strategy not in (None, "contiguous"):
        raise SpecProblem("data.split.strategy: text is split contiguous; a shuffled text would leak into what judges it")
    windows = spec.sequence or Sequence()
    sizes = split_sizes(len(text), spec.split)
    train, rest = text[: sizes.train], text[sizes.train :]
    pieces = [train, rest[: sizes.validation], rest[sizes.validation :]]
    if codec is None:
        tokenizer = spec.tokenizer or ByteTokenizer()
        codec = _shared(tokenizer, text, train, home, world)
    parts = [cut_windows(windows, ids) for ids in _streams(codec, text, pieces, spec)]
    if len(parts[0]) == 0:
        raise DataProblem(f"data.sequence.length: the training text has fewer than {windows.length + 1} tokens; lower it")
    return Dataset(parts[0], parts[1], parts[2], Description((windows.length,), codec.rows, codec=codec))


def _streams(codec: Codec, text: str, pieces: list[str], spec: Data) -> list[npt.NDArray[np.int32]]:
    if not isinstance(spec.tokenizer or ByteTokenizer(), ByteTokenizer):
        return [codec.encode(piece) for piece in pieces]
    ids = codec.encode(text)
    sizes = split_sizes(len(ids), spec.split)
    return list(np.split(ids, [sizes.train, sizes.train + sizes.validation]))
