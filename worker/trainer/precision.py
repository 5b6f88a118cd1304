"""Precision spec into the context that forward passes run in."""

from contextlib import AbstractContextManager, nullcontext
from typing import assert_never

import torch

from stoker.spec.precision import Precision


class Arithmetic:
    def __init__(self, spec: Precision, device: torch.device) -> None:
        self._mode, self._device = spec.mode, device.type

    def autocast(self) -> AbstractContextManager[object]:
        match self._mode:
            case "fp32":
                return nullcontext()
            case "bf16_mixed":
                return torch.autocast(self._device, torch.bfloat16)
            case _:
                assert_never(self._mode)
