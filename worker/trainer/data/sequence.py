"""Sequence specs: a stream of tokens into windows, and texts into rows of equal length."""

from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch

from stoker.spec.data.sequence import Sequence
from stoker.spec.derived.arithmetic import windows
from worker.trainer.data.samples import TensorSamples
from worker.trainer.data.step import Fitted, Shape
from worker.trainer.data.tokenizer import Tokenization


@dataclass(frozen=True)
class Padding(Fitted):
    """Token ids of texts into rows of one length."""

    kind: ClassVar[str] = "padding"
    length: int
    token: int
    """Id that fills up short texts."""

    def apply(self, values: Many[npt.NDArray[np.int32]]) -> torch.Tensor:
        """(n, length) int32: the first tokens of each text, and `token` where it is shorter."""
        ids = torch.full((len(values), self.length), self.token, dtype=torch.int32)
        for row, tokens in zip(ids, values, strict=True):
            row[: len(tokens)].copy_(torch.from_numpy(tokens[: self.length].copy()))
        return ids

    def after(self, shape: Shape) -> Shape:
        return (self.length,)


@dataclass(frozen=True)
class Pad:
    """The step that `data.sequence` asks for where a text is a sample."""

    makes: ClassVar[type[Fitted]] = Padding
    spec: Sequence

    def fit(self, train: Many[npt.NDArray[np.int32]], before: Many[Fitted]) -> Padding:
        """With the padding token of the tokenizer, or the id after all of its tokens."""
        tokens = next(step for step in before if isinstance(step, Tokenization))
        return Padding(self.spec.length, tokens.padding)


def cut_windows(spec: Sequence, ids: npt.NDArray[np.int32]) -> TensorSamples:
    """Windows that do not overlap; each predicts the token after every one of its own. Two views of one copy of the ids."""
    count, tokens = windows(len(ids), spec.length), torch.empty(max(1, len(ids)), dtype=torch.int32)
    tokens[: len(ids)].copy_(torch.from_numpy(ids.copy()))
    used = count * spec.length
    return TensorSamples(tokens[:used].view(count, spec.length), tokens[1 : used + 1].view(count, spec.length))
