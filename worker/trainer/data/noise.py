"""Noise that generated samples are made of: a pure function of the seed, the epoch and the row."""

import math
from dataclasses import dataclass, replace
from typing import Literal, assert_never

import numpy as np
import numpy.typing as npt
import torch

from stoker.spec.model import GAN, Model
from worker.trainer.data.build import Dataset
from worker.trainer.data.masked import FIXED, words
from worker.trainer.data.samples import Pair, Wrapped, ready

Latent = Literal["normal", "uniform"]
TWICE = 2
"""Samples are drawn twice in each step: to teach the discriminator, and then the generator."""


@dataclass(frozen=True)
class WithNoise(Wrapped):
    """What is drawn are (n, 2 x latent + 1) numbers as inputs and the inputs of `inner`, as rows, as targets.

    The last number of each row is uniform from 0 to 1, a place between a real and a generated sample.
    """

    latent: int
    kind: Latent
    seed: int

    def drawn(self, rows: torch.Tensor, epoch: int, space: torch.Tensor | None = None) -> Pair:
        return self._noise(rows.numpy(), epoch), self.inner.drawn(rows, epoch, space)[0].flatten(1)

    def slice(self, start: int, stop: int, device: torch.device) -> Pair:
        samples = self.inner.slice(start, stop, device)[0].flatten(1)
        return ready(self._noise(np.arange(start, start + len(samples)), FIXED), device), samples

    def _noise(self, rows: npt.NDArray[np.int64], epoch: int) -> torch.Tensor:
        stream = f"{self.seed}/{epoch}"
        latent = noise(f"{stream}/latent", rows, TWICE * self.latent, self.kind)
        return torch.cat([latent, torch.from_numpy(_uniform(f"{stream}/between", rows, 1).astype(np.float32))], 1)


def noise(stream: str, rows: npt.NDArray[np.int64], width: int, kind: Latent) -> torch.Tensor:
    """(len(rows), width) float32, a pure function of the stream, the row and the column."""
    chance = _uniform(stream, rows, width)
    match kind:
        case "uniform":
            values = 2 * chance - 1
        case "normal":  # Box and Muller 1958
            turn = _uniform(f"{stream}/turn", rows, width)
            values = np.sqrt(-2 * np.log(chance)) * np.cos(2 * math.pi * turn)
        case _:
            assert_never(kind)
    return torch.from_numpy(values.astype(np.float32))


def _uniform(stream: str, rows: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.float64]:
    """Between 0 and 1, and neither of them."""
    return ((words(stream, rows, width) >> np.uint64(11)).astype(np.float64) + 0.5) / 2**53


def with_noise(spec: Model, data: Dataset, seed: int) -> Dataset:
    """For a gan, noise as inputs and samples as targets. For other models, the data as it is."""
    if not isinstance(spec, GAN):
        return data
    train, validation, test = (
        WithNoise(part, spec.latent_dim, spec.latent, seed + number)
        for number, part in enumerate((data.train, data.validation, data.test))
    )
    return Dataset(train, validation, test, replace(data.about, outputs=math.prod(data.about.shape)))
