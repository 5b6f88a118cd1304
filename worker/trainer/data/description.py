"""What a run derives from its data set about inputs and outputs; saved with every checkpoint, and enough to predict."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from worker.trainer.data.codec import Codec
from worker.trainer.data.normalization import Scaling
from worker.trainer.data.sequence import Padding
from worker.trainer.data.step import Fitted, apply_steps, shape_after
from worker.trainer.data.steps import entries_before_steps, load_steps, save_steps
from worker.trainer.data.tokenizer import Tokenization

FILE = "data.json"
Kind = TypeVar("Kind", bound=Fitted)


@dataclass(frozen=True)
class Answer:
    """What one of several tasks predicts for a sample."""

    name: str
    outputs: int
    """Classes or numbers."""
    classes: tuple[str | int, ...] = ()
    """Name of each class, where there are classes."""


@dataclass(frozen=True)
class Description:
    shape: tuple[int, ...]
    """Shape of one sample as the model reads it, after all steps; (length,) for text."""
    outputs: int
    """Classes, numbers, or rows of the vocabulary."""
    classes: tuple[str | int, ...] = ()
    """Name of each class, where there are classes."""
    columns: tuple[str, ...] = ()
    """Feature columns of a table, in order."""
    steps: tuple[Fitted, ...] = ()
    """From a row of the data set to a sample, in this order."""
    answers: tuple[Answer, ...] = ()
    """What each of several tasks predicts, in their order, which is that of their outputs."""

    def step(self, kind: type[Kind]) -> Kind | None:
        return next((step for step in self.steps if isinstance(step, kind)), None)

    @property
    def scaling(self) -> Scaling | None:
        return self.step(Scaling)

    @property
    def codec(self) -> Codec | None:
        """The tokenizer of text."""
        tokens = self.step(Tokenization)
        return None if tokens is None else tokens.codec

    @property
    def padded(self) -> bool:
        """Whether each text is a sample; else windows of one text are, or there is no text."""
        return self.step(Padding) is not None

    @property
    def vocabulary(self) -> int | None:
        """Token ids, with the padding, where each text is a sample; None elsewhere."""
        tokens = self.step(Tokenization)
        return tokens.vocabulary if tokens is not None and self.padded else None

    @property
    def padding(self) -> int | None:
        """Token id that fills up short texts, where each text is a sample."""
        padding = self.step(Padding)
        return None if padding is None else padding.token

    def prepared(self, inputs: npt.ArrayLike) -> torch.Tensor:
        """Rows as they stand in the data set, (n, *shape) numbers or n texts, as the model reads them: (n, *self.shape).

        Raises ValueError when the model reads samples of another shape.
        """
        rows: torch.Tensor | list[str]
        if self.codec is None:
            rows = torch.tensor(np.asarray(inputs, dtype=np.float32))
            shape = tuple(rows.shape[1:])
        else:
            rows, shape = [str(text) for text in np.asarray(inputs).ravel()], ()
        if shape_after(self.steps, shape) != self.shape:
            raise ValueError(f"samples have shape {shape}, the model was trained on {self.shape}")
        prepared: torch.Tensor = apply_steps(self.steps, rows)
        return prepared

    def save(self, directory: Path) -> list[str]:
        """Writes data.json and the files of the steps. Returns their names."""
        steps, files = save_steps(self.steps, directory)
        plain: dict[str, object] = {
            "shape": self.shape,
            "outputs": self.outputs,
            "classes": self.classes,
            "columns": self.columns,
            "steps": steps,
        }
        if self.answers:
            plain["tasks"] = [asdict(answer) for answer in self.answers]
        (directory / FILE).write_text(json.dumps(plain))
        return [FILE, *files]

    @staticmethod
    def load(directory: Path) -> "Description":
        """Raises OSError, KeyError or ValueError where a file is missing or holds something else."""
        plain: dict[str, Any] = json.loads((directory / FILE).read_text())
        entries = plain["steps"] if "steps" in plain else entries_before_steps(plain, directory)
        return Description(
            tuple(plain["shape"]),
            plain["outputs"],
            tuple(plain["classes"]),
            tuple(plain["columns"]),
            load_steps(entries, directory),
            tuple(Answer(one["name"], one["outputs"], tuple(one["classes"])) for one in plain.get("tasks", ())),
        )
