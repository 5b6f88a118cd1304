"""Normalization specs into one affine map, fitted on training inputs."""

from dataclasses import dataclass
from typing import assert_never

import torch

from stoker.spec.data.normalization import MinMax, Normalization, Standard


@dataclass(frozen=True)
class Scaling:
    """x → (x - shift) / scale; both broadcast against one sample."""

    shift: torch.Tensor
    scale: torch.Tensor

    def apply(self, inputs: torch.Tensor) -> torch.Tensor:
        return (inputs - self.shift) / self.scale

    def undo(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs * self.scale + self.shift


def fit_scaling(spec: Normalization, inputs: torch.Tensor) -> Scaling:
    """From (n, *shape); a feature that never changes keeps its scale. Moments are taken in float64."""
    over = tuple(range(inputs.dim()))
    if spec.per_channel:
        over = (0, *over[2:])
    values = inputs.double()
    match spec:
        case Standard():
            shift = values.mean(over, keepdim=True)
            scale = (values - shift).square().mean(over, keepdim=True).sqrt()
        case MinMax():
            shift = values.amin(over, keepdim=True)
            scale = values.amax(over, keepdim=True) - shift
        case _:
            assert_never(spec)
    scale = torch.where(scale > 0, scale, 1.0)
    return Scaling(shift[0].float(), scale[0].float())
