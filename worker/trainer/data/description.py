"""What a data set taught a run about its inputs and outputs; saved with every checkpoint."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from worker.trainer.data.codec import Codec
from worker.trainer.data.normalization import Scaling
from worker.trainer.data.sequence import padded
from worker.trainer.data.tokenizer import load_codec


@dataclass(frozen=True)
class Answer:
    """What one of several tasks wants to know of a sample."""

    name: str
    outputs: int
    """Classes or numbers."""
    classes: tuple[str | int, ...] = ()
    """Name of each class, where there are classes."""


@dataclass(frozen=True)
class Description:
    shape: tuple[int, ...]
    """Of one sample as the model sees it; (length,) for text."""
    outputs: int
    """Classes, numbers, or rows of the vocabulary."""
    classes: tuple[str | int, ...] = ()
    """Name of each class, where there are classes."""
    columns: tuple[str, ...] = ()
    """Feature columns of a table, in order."""
    scaling: Scaling | None = None
    codec: Codec | None = None
    answers: tuple[Answer, ...] = ()
    """Of several tasks, in their order; their outputs lie side by side."""
    padded: bool = False
    """Samples are texts of a table: the tokens of each, and then padding: that of the codec, or the token after all of its own."""

    @property
    def vocabulary(self) -> int | None:
        """Tokens that there are, where something is said of each text; None where the text is continued, or there is none."""
        if self.codec is None or not self.padded:
            return None
        return self.codec.rows + (self.codec.pad is None)

    @property
    def padding(self) -> int | None:
        """Id of what fills up texts of a table."""
        if self.codec is None or not self.padded:
            return None
        return self.codec.rows if self.codec.pad is None else self.codec.pad

    def ids(self, texts: Sequence[str]) -> torch.Tensor:
        """(n, length) int32: what a model of texts in a table reads of them. Raises ValueError for another model."""
        if self.codec is None or not self.padded:
            raise ValueError("this model was not trained on texts of a table")
        return padded(self.codec, texts, self.shape[0])

    def save(self, directory: Path) -> None:
        """Into data.json, scaling.safetensors and tokenizer.json."""
        plain: dict[str, object] = {
            "shape": self.shape,
            "outputs": self.outputs,
            "classes": self.classes,
            "columns": self.columns,
        }
        if self.answers:
            plain["tasks"] = [asdict(answer) for answer in self.answers]
        if self.padded:
            plain["padded"] = True
        (directory / "data.json").write_text(json.dumps(plain))
        if self.scaling is not None:
            tensors = {"shift": self.scaling.shift.contiguous(), "scale": self.scaling.scale.contiguous()}
            save_file(tensors, directory / "scaling.safetensors")
        if self.codec is not None:
            (directory / "tokenizer.json").write_text(self.codec.dump())

    @staticmethod
    def load(directory: Path) -> "Description":
        plain = json.loads((directory / "data.json").read_text())
        scaling, codec = None, None
        if (directory / "scaling.safetensors").exists():
            scaling = Scaling(**{name: tensor.clone() for name, tensor in load_file(directory / "scaling.safetensors").items()})
        if (directory / "tokenizer.json").exists():
            codec = load_codec((directory / "tokenizer.json").read_text())
        answers = tuple(Answer(one["name"], one["outputs"], tuple(one["classes"])) for one in plain.get("tasks", ()))
        return Description(
            tuple(plain["shape"]),
            plain["outputs"],
            tuple(plain["classes"]),
            tuple(plain["columns"]),
            scaling,
            codec,
            answers,
            plain.get("padded", False),
        )
