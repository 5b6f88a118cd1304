"""What metrics see of the outputs and targets that a loss compares."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from worker.trainer.loss.numbers import SummedGaussian
from worker.trainer.loss.weighted import SampleWeighted


def _same(value: torch.Tensor) -> torch.Tensor:
    return value


@dataclass(frozen=True)
class Reading:
    predicted: Callable[[torch.Tensor], torch.Tensor] = _same
    """Of outputs what is held against the targets: of means and variances, the means."""
    truth: Callable[[torch.Tensor], torch.Tensor] = _same
    """Of targets what is to be predicted, without the weights of samples."""


def reading_of(loss: nn.Module) -> Reading:
    match loss:
        case SampleWeighted(loss=inner):
            return Reading(reading_of(inner).predicted, loss.plain)
        case SummedGaussian():
            return Reading(lambda outputs: loss.parts(outputs)[0])
        case _:
            return Reading()
