"""What generated samples are made of: numbers that are a pure function of the seed, the epoch and the place in the data set."""

import math
from dataclasses import dataclass, replace
from typing import Literal, assert_never

import numpy as np
import numpy.typing as npt
import torch

from stoker.spec.model import GAN, Model
from worker.trainer.data.build import Dataset
from worker.trainer.data.masked import FIXED, words
from worker.trainer.data.samples import Samples, ready

Latent = Literal["normal", "uniform"]
TWICE = 2
"""Samples are drawn twice in each step: to teach the discriminator, and then the generator."""


@dataclass(frozen=True)
class WithNoise(Samples):
    """`inputs` are samples. What is drawn are (n, 2 x latent + 1) numbers as inputs and the samples, as rows, as targets.

    The last number of each row is uniform from 0 to 1, a place between a real and a generated sample.
    """

    latent: int
    kind: Latent
    seed: int

    def drawn(self, rows: torch.Tensor, epoch: int, space: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        samples = torch.index_select(self.inputs, 0, rows, out=None if space is None else space[: len(rows)])
        return self._noise(rows.numpy(), epoch), samples.flatten(1)

    def slice(self, start: int, stop: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        samples = self.inputs[start:stop].flatten(1)
        return ready(self._noise(np.arange(start, start + len(samples)), FIXED), device), ready(samples, device)

    def _noise(self, rows: npt.NDArray[np.int64], epoch: int) -> torch.Tensor:
        stream = f"{self.seed}/{epoch}"
        latent = noise(f"{stream}/latent", rows, TWICE * self.latent, self.kind)
        return torch.cat([latent, torch.from_numpy(_uniform(f"{stream}/between", rows, 1).astype(np.float32))], 1)


def noise(stream: str, rows: npt.NDArray[np.int64], width: int, kind: Latent) -> torch.Tensor:
    """(len(rows), width) float32, the same whoever asks for it."""
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
    """For a gan: noise as inputs, and samples as what is to be matched. For other models, the data."""
    if not isinstance(spec, GAN):
        return data
    train, validation, test = (
        WithNoise(part.inputs, part.inputs, spec.latent_dim, spec.latent, seed + number)
        for number, part in enumerate((data.train, data.validation, data.test))
    )
    return Dataset(train, validation, test, replace(data.about, outputs=math.prod(data.about.shape)))
