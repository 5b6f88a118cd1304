"""What generator and discriminator minimise: numbers that the discriminator says of samples, to losses."""

from typing import assert_never

import torch
from torch import nn
from torch.nn import functional as F

from stoker.spec.loss import Hinge, NonSaturating, Wasserstein
from worker.trainer.loss.summed import Summed

ContestSpec = NonSaturating | Hinge | Wasserstein


def of_generator(spec: ContestSpec, drawn: torch.Tensor) -> torch.Tensor:
    """(n,) numbers said of generated samples → (n,)."""
    match spec:
        case NonSaturating():
            return F.softplus(-drawn)
        case Hinge() | Wasserstein():
            return -drawn
        case _:
            assert_never(spec)


def of_discriminator(spec: ContestSpec, real: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """(n,) numbers said of as many real and generated samples → (n,); without what is asked of slopes."""
    match spec:
        case NonSaturating(label_smoothing=smoothing):
            called_real = (
                F.softplus(-real) if smoothing == 0 else (1 - smoothing) * F.softplus(-real) + smoothing * F.softplus(real)
            )
            return called_real + F.softplus(drawn)
        case Hinge():
            return F.relu(1 - real) + F.relu(1 + drawn)
        case Wasserstein():
            return drawn - real
        case _:
            assert_never(spec)


class GanLoss(Summed):
    """Of (n, numbers) generated samples what the generator minimises. The discriminator is no part of the module."""

    def __init__(self, spec: ContestSpec, judging: nn.Module) -> None:
        super().__init__()
        self.spec, self._judging = spec, (judging,)

    def says(self, samples: torch.Tensor) -> torch.Tensor:
        """(n,) float32: what the discriminator says of samples."""
        out: torch.Tensor = self._judging[0](samples).float()
        return out

    def each(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return of_generator(self.spec, self.says(outputs))

    def of_discriminator(self, samples: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """(n,): of real and as many generated samples."""
        return of_discriminator(self.spec, self.says(samples), self.says(drawn))

    def sample_weights(self, targets: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(targets), dtype=torch.float64)


def slope_penalty(gan_loss: GanLoss, samples: torch.Tensor, drawn: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """(n,): (slope of the discriminator - 1) squared, at places between real and generated samples; `share`: (n, 1), of the real ones."""
    between = (share * samples + (1 - share) * drawn).requires_grad_()
    said = gan_loss.says(between)
    (slope,) = torch.autograd.grad(said.sum(), between, create_graph=True)
    penalty: torch.Tensor = (torch.linalg.vector_norm(slope.float(), dim=1) - 1).square()
    return penalty
