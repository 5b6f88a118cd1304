"""Normalization specs into one affine map, fitted on training inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, assert_never

import torch

from stoker.spec.data.normalization import MinMax, Normalization, Standard
from worker.trainer.data.step import Fitted


@dataclass(frozen=True)
class Scaling(Fitted):
    """x → (x - shift) / scale; both broadcast against one sample."""

    kind: ClassVar[str] = "scaling"
    shift: torch.Tensor
    scale: torch.Tensor

    def apply(self, values: torch.Tensor) -> torch.Tensor:
        return (values - self.shift) / self.scale

    def undo(self, values: torch.Tensor) -> torch.Tensor:
        return values * self.scale + self.shift


@dataclass(frozen=True)
class Normalize:
    """The step that `data.normalization` asks for."""

    makes: ClassVar[type[Fitted]] = Scaling
    spec: Normalization

    def fit(self, train: torch.Tensor, before: Sequence[Fitted]) -> Scaling:
        return fit_scaling(self.spec, train)


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
