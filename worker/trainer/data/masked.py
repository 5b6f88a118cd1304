"""Text with hidden tokens: which tokens are hidden is a pure function of the seed, the epoch and the row."""

import hashlib
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from stoker.spec.derived.arithmetic import hidden_tokens
from stoker.spec.task import MaskedLM, Task
from worker.trainer.data.build import Dataset
from worker.trainer.data.samples import Pair, Wrapped, ready

UNSEEN = -100
"""Target of a token that is not asked for."""
FIXED = -1
"""Epoch whose masks a split is judged with."""

Words = npt.NDArray[np.uint64]


HOST = torch.device("cpu")


@dataclass(frozen=True)
class Masked(Wrapped):
    """`inner` has the same ids as inputs and targets; what is drawn has some of them hidden, and asks for these alone."""

    spec: MaskedLM
    vocabulary: int
    """Tokens of the tokenizer."""
    hiding: int
    """The one that stands for what is hidden."""
    seed: int

    @property
    def counted(self) -> torch.Tensor:
        """As many targets of each sample as are asked for."""
        targets = self.inner.counted
        return targets[:, : hidden_tokens(targets.shape[1], self.spec.mask_rate)]

    def drawn(self, rows: torch.Tensor, epoch: int, space: torch.Tensor | None = None) -> Pair:
        return self._hidden(self.inner.drawn(rows, epoch)[0], rows.numpy(), epoch)

    def slice(self, start: int, stop: int, device: torch.device) -> Pair:
        ids, _ = self.inner.slice(start, stop, HOST)
        inputs, targets = self._hidden(ids, np.arange(start, start + len(ids)), FIXED)
        return ready(inputs, device), ready(targets, device)

    def _hidden(self, ids: torch.Tensor, rows: npt.NDArray[np.int64], epoch: int) -> Pair:
        """The same number of tokens is asked for in each sample, so each sample counts the same."""
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
    """(len(rows), length): one word for each row and column, a pure function of both (SplitMix64, Steele et al. 2014)."""
    start = np.frombuffer(hashlib.sha256(stream.encode()).digest()[:8], np.uint64)
    places = rows.astype(np.uint64)[:, None] * np.uint64(length) + np.arange(length, dtype=np.uint64)
    return _scramble(cast(Words, (places + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + start))


def _scramble(words: Words) -> Words:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return cast(Words, words ^ (words >> np.uint64(31)))


def mask(spec: Task, data: Dataset, seed: int) -> Dataset:
    """For a task that hides tokens, the same text to be filled in; its vocabulary gets a mask token where it has none. For other
    tasks, the data as it is.
    """
    if not isinstance(spec, MaskedLM):
        return data
    vocabulary, codec = data.about.outputs, data.about.codec
    own = None if codec is None else codec.mask
    hiding = vocabulary if own is None else own
    train, validation, test = (
        Masked(part.reconstructing(), spec, vocabulary, hiding, seed + number)
        for number, part in enumerate((data.train, data.validation, data.test))
    )
    return Dataset(train, validation, test, replace(data.about, outputs=vocabulary + (own is None)))
