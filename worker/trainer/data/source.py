"""Source specs into what the files hold."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stoker.spec.data.source import Arrays, Csv, ImageFolder, Parquet, Source, Text
from worker.trainer.data.images import read_images
from worker.trainer.data.table import features, labels, numbers, read_csv, read_parquet, strings
from worker.trainer.errors import DataProblem, SpecProblem


@dataclass(frozen=True)
class Wanted:
    """What the task asks of a source."""

    classes: bool
    """Targets are classes, not numbers."""
    columns: tuple[str, ...] = ()
    """Target columns of a table."""
    labels: bool = False
    """Targets are zeros and ones."""
    weights: str | None = None
    """Column of a table with the weight of each sample."""
    name: str = ""
    count: int | None = None
    """Classes or numbers, where they are known."""
    parts: tuple["Wanted", ...] = ()
    """What each of several tasks asks of every sample."""
    targets: bool = True
    """Whether anything is asked of samples; else there are none to read."""


@dataclass(frozen=True)
class Table:
    """Samples with a target each."""

    inputs: npt.NDArray[np.float32]
    """(n, *shape)."""
    targets: npt.NDArray[np.generic]
    """(n,) int64 or text for classes, (n, outputs) float32 for numbers."""
    columns: tuple[str, ...] = field(default=())
    """Names of the features, where they have names."""
    weights: npt.NDArray[np.float32] | None = None
    """(n,): what each sample weighs in the loss."""
    parts: tuple[npt.NDArray[np.generic], ...] = ()
    """Targets of each of several tasks, in place of `targets`."""
    texts: tuple[str, ...] | None = None
    """Of each sample, in place of `inputs`, which is empty then."""


def read_source(spec: Source, root: Path, wanted: Wanted | None) -> Table | bytes:
    """Everything the data set holds, in file order; bytes for text. Raises DataProblem naming the file or column."""
    files = sorted((p for p in root.rglob("*") if p.is_file()), key=lambda p: p.relative_to(root).as_posix())
    if not files:
        raise DataProblem(f"data set {spec.dataset}: no files in {root}")
    if wanted is not None and wanted.parts and not isinstance(spec, Csv | Parquet):
        raise SpecProblem(f"data.source.type: {spec.type} has one target per sample; task multi_task learns from csv or parquet")
    match spec:
        case Text():
            return b"".join(_utf8(path) for path in files)
        case Csv() | Parquet():
            return _table(spec, files, _needed(wanted))
        case ImageFolder():
            if wanted is not None and wanted.labels:
                raise SpecProblem(
                    "data.source.type: image_folder has one class per picture; labels come with csv, parquet or arrays"
                )
            values, folders = read_images(spec, root, files)
            return Table(values, folders if _needed(wanted).targets else _none(values))
        case Arrays():
            return _arrays(spec, root, _needed(wanted))
        case _:
            assert_never(spec)


def _needed(wanted: Wanted | None) -> Wanted:
    if wanted is None:
        raise SpecProblem("data.source.type: a causal_lm learns from text")
    return wanted


def _utf8(path: Path) -> bytes:
    data = path.read_bytes()
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise DataProblem(f"{path.name}: byte {error.start} is not UTF-8; convert the file") from error
    return data


def _table(spec: Csv | Parquet, files: list[Path], wanted: Wanted) -> Table:
    if not wanted.columns and wanted.targets:
        raise SpecProblem("task.target: name the column to predict")
    table = read_csv(files, spec.delimiter) if isinstance(spec, Csv) else read_parquet(files)
    apart = wanted.columns if wanted.weights is None else (*wanted.columns, wanted.weights)
    texts = None if spec.text is None else strings(table, spec.text)
    if texts is None:
        names, inputs = features(table, spec.columns, apart)
    else:
        names, inputs = (), np.empty((len(texts), 0), np.float32)
    weights = None if wanted.weights is None else _weights(numbers(table, wanted.weights), wanted.weights)
    if wanted.parts:
        nothing = np.empty((len(inputs), 0), np.float32)
        return Table(inputs, nothing, names, weights, tuple(_targets(table, part) for part in wanted.parts))
    return Table(inputs, _targets(table, wanted) if wanted.targets else _none(inputs), names, weights, texts=texts)


def _none(inputs: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """(n, 0): nothing is said of samples."""
    return np.empty((len(inputs), 0), np.float32)


def _targets(table: pa.Table, wanted: Wanted) -> npt.NDArray[np.generic]:
    if wanted.classes:
        return labels(table, wanted.columns[0])
    targets = np.stack([numbers(table, name) for name in wanted.columns], axis=1)
    if wanted.labels:
        _zeros_and_ones(targets, wanted.columns)
    return targets


def _weights(values: npt.NDArray[np.float32], name: str) -> npt.NDArray[np.float32]:
    if (values < 0).any():
        row = int(np.flatnonzero(values < 0)[0])
        raise DataProblem(f"data.sample_weight_column: {name!r} is {values[row]:g} at row {row + 1}; weights are 0 or more")
    return values


def _zeros_and_ones(targets: npt.NDArray[np.generic], names: Sequence[str]) -> None:
    """Of (n, labels). Raises DataProblem naming the label that is something else."""
    bad = np.argwhere((targets != 0) & (targets != 1))
    if len(bad):
        row, label = bad[0]
        raise DataProblem(f"{names[label]}: row {row + 1} holds {targets[row, label]:g}; labels are 0 and 1")


def _arrays(spec: Arrays, root: Path, wanted: Wanted) -> Table:
    inputs = _array(root, spec.inputs)
    targets = _array(root, spec.targets) if wanted.targets else _none(inputs)
    if len(inputs) != len(targets):
        raise DataProblem(f"{spec.inputs} has {len(inputs)} samples, {spec.targets} has {len(targets)}; they must be as many")
    if not 2 <= inputs.ndim <= 4:
        raise DataProblem(
            f"{spec.inputs}: shape {inputs.shape} is not (samples, features), (samples, channels, length) or a picture"
        )
    if wanted.classes:
        if targets.ndim != 1 or targets.dtype.kind not in "iub":
            raise DataProblem(
                f"{spec.targets}: classes must be integers of shape (samples,), not {targets.dtype} {targets.shape}"
            )
        return Table(_finite(inputs, spec.inputs), targets.astype(np.int64))
    if targets.ndim not in (1, 2):
        raise DataProblem(f"{spec.targets}: numbers must have shape (samples,) or (samples, outputs), not {targets.shape}")
    values = _finite(targets.reshape(len(targets), -1), spec.targets)
    if wanted.labels:
        _zeros_and_ones(values, [spec.targets] * values.shape[1])
    return Table(_finite(inputs, spec.inputs), values)


def _array(root: Path, name: str) -> npt.NDArray[np.generic]:
    try:
        array: npt.NDArray[np.generic] = np.load(root / name, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataProblem(f"{name}: cannot be read as a NumPy array: {error}") from error
    if array.dtype.kind not in "iubf" or array.ndim == 0 or array.size == 0:
        raise DataProblem(f"{name}: holds {array.dtype} of shape {array.shape}, not numbers")
    return array


def _finite(array: npt.NDArray[np.generic], name: str) -> npt.NDArray[np.float32]:
    values = array.astype(np.float32)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise DataProblem(f"{name}: sample {bad[0][0]} holds a value that is not finite ({len(bad)} such values); clean them")
    return values
