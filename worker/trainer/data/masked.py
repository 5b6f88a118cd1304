"""Text of which some tokens are hidden: which ones is a pure function of the seed, the epoch and the place in the data set."""

import hashlib
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from stoker.spec.derived.arithmetic import hidden_tokens
from stoker.spec.task import MaskedLM, Task
from worker.trainer.data.build import Dataset
from worker.trainer.data.samples import Samples, ready

UNSEEN = -100
"""Target of a token that is not asked for."""
FIXED = -1
"""Epoch whose masks a split is judged with."""

Words = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Masked(Samples):
    """`inputs` and `targets` are the same ids; what is drawn has some of them hidden, and asks for these alone."""

    spec: MaskedLM
    vocabulary: int
    """Tokens of the tokenizer."""
    hiding: int
    """The one that stands for what is hidden."""
    seed: int

    @property
    def counted(self) -> torch.Tensor:
        """As many targets of each sample as are asked for."""
        return self.targets[:, : hidden_tokens(self.targets.shape[1], self.spec.mask_rate)]

    def drawn(self, rows: torch.Tensor, epoch: int, space: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        ids = self.inputs.index_select(0, rows)
        return self._hidden(ids, rows.numpy(), epoch)

    def slice(self, start: int, stop: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        ids = self.inputs[start:stop]
        inputs, targets = self._hidden(ids, np.arange(start, start + len(ids)), FIXED)
        return ready(inputs, device), ready(targets, device)

    def _hidden(self, ids: torch.Tensor, rows: npt.NDArray[np.int64], epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Exactly so many tokens of each sample are asked for, so that all samples count alike."""
        length = ids.shape[1]
        order, fate, other = (words(f"{self.seed}/{epoch}/{what}", rows, length) for what in ("order", "fate", "token"))
        chosen = torch.zeros(ids.shape, dtype=torch.bool)
        count = hidden_tokens(length, self.spec.mask_rate)
        chosen.scatter_(1, torch.from_numpy(np.argpartition(order, count - 1, axis=1)[:, :count].copy()), True)
        chance = torch.from_numpy((fate >> np.uint64(11)).astype(np.float64) / 2**53)
        masked = chosen & (chance < self.spec.masked_share)
        replaced = chosen & ~masked & (chance < self.spec.masked_share + self.spec.random_share)
        random = torch.from_numpy((other % np.uint64(self.vocabulary)).astype(np.int32))
        inputs = torch.where(masked, torch.tensor(self.hiding, dtype=torch.int32), torch.where(replaced, random, ids))
        return inputs, torch.where(chosen, ids, torch.tensor(UNSEEN, dtype=torch.int32))


def words(stream: str, rows: npt.NDArray[np.int64], length: int) -> Words:
    """(len(rows), length): one word for each place, the same whoever asks for it (SplitMix64, Steele et al. 2014)."""
    start = np.frombuffer(hashlib.sha256(stream.encode()).digest()[:8], np.uint64)
    places = rows.astype(np.uint64)[:, None] * np.uint64(length) + np.arange(length, dtype=np.uint64)
    return _scramble(cast(Words, (places + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + start))


def _scramble(words: Words) -> Words:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return cast(Words, words ^ (words >> np.uint64(31)))


def mask(spec: Task, data: Dataset, seed: int) -> Dataset:
    """For a task that hides tokens: the same text to be filled in, with one token more in the vocabulary where it has none that
    hides others. For others, the data."""
    if not isinstance(spec, MaskedLM):
        return data
    vocabulary, codec = data.about.outputs, data.about.codec
    own = None if codec is None else codec.mask
    hiding = vocabulary if own is None else own
    train, validation, test = (
        Masked(part.inputs, part.inputs, spec, vocabulary, hiding, seed + number)
        for number, part in enumerate((data.train, data.validation, data.test))
    )
    return Dataset(train, validation, test, replace(data.about, outputs=vocabulary + (own is None)))
