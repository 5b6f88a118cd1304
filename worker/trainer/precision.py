"""Precision spec into the context that forward passes run in, and the scale of the loss."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, assert_never

import torch

from stoker.spec.precision import Precision


class Scaler(Protocol):
    """Keeps small gradients from vanishing in a narrow number format: the loss is scaled up, gradients are scaled down again."""

    def scaled(self, scale: torch.Tensor) -> torch.Tensor:
        """What the summed loss is multiplied by before its backward pass, from what it would be multiplied by without scaling."""

    def unscale(self) -> None:
        """Once per step, when all gradients are there."""

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Move the weights, unless a gradient overflowed."""

    def update(self) -> None:
        """Once per step, at its end."""


class NoScaler:
    def scaled(self, scale: torch.Tensor) -> torch.Tensor:
        return scale

    def unscale(self) -> None:
        return

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        optimizer.step()

    def update(self) -> None:
        return


class Arithmetic:
    def __init__(self, spec: Precision, device: torch.device) -> None:
        self._mode, self._device = spec.mode, device.type
        self.scaler: Scaler = NoScaler()

    def scaled(self, scale: torch.Tensor) -> torch.Tensor:
        return self.scaler.scaled(scale)

    def autocast(self) -> AbstractContextManager[object]:
        match self._mode:
            case "fp32":
                return nullcontext()
            case "bf16_mixed":
                return torch.autocast(self._device, torch.bfloat16)
            case _:
                assert_never(self._mode)
