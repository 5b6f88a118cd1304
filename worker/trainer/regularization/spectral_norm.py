"""Matrices divided by an estimate of their largest singular value (Miyato et al. 2018).

The estimate is brought closer once per step, when the weights have moved, and not with each pass: so it does not depend on how a
batch is cut up, and every rank comes to the same one.
"""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

import torch
from torch import nn
from torch.nn.utils import parametrize

from stoker.spec.regularization import SpectralNorm
from worker.trainer.errors import SpecProblem
from worker.trainer.runtime.names import plain

BEGIN = 15
"""Iterations that the first estimate takes, as in PyTorch."""
TAIL = ".0.u"
"""How the estimate of a singular value is named, below the weight that it divides."""


class Bounded(nn.Module):
    """W, (rows, ...), to W / (u^T W v); u and v, of length 1, approach the singular vectors of the largest value."""

    def __init__(self, weight: torch.Tensor, iterations: int) -> None:
        super().__init__()
        self.iterations = iterations
        flat = weight.detach().flatten(1)
        self.u: torch.Tensor
        self.v: torch.Tensor
        self.register_buffer("u", nn.functional.normalize(torch.randn(flat.shape[0], device=flat.device), dim=0))
        self.register_buffer("v", nn.functional.normalize(torch.randn(flat.shape[1], device=flat.device), dim=0))
        self.closer(weight, BEGIN)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            return weight / torch.dot(self.u, weight.flatten(1) @ self.v)

    @torch.no_grad()
    def closer(self, weight: torch.Tensor, iterations: int | None = None) -> None:
        """Power iterations on the weight as it is."""
        flat = weight.flatten(1)
        if flat.device.type == "meta":
            return
        for _ in range(iterations or self.iterations):
            self.u.copy_(nn.functional.normalize(flat @ self.v, dim=0, eps=1e-12))
            self.v.copy_(nn.functional.normalize(flat.T @ self.u, dim=0, eps=1e-12))


def bound(spec: SpectralNorm | None, model: nn.Module) -> nn.Module:
    """The same model, its matrices divided whenever they are read. Raises SpecProblem for a pattern that no matrix falls to."""
    if spec is None:
        return model
    chosen = [
        (module, name, weight)
        for prefix, module in model.named_modules()
        for name, weight in module.named_parameters(prefix="", recurse=False)
        if weight.dim() > 1 and fnmatchcase(plain(f"{prefix}.{name}" if prefix else name), spec.pattern or "*")
    ]
    if not chosen:
        raise SpecProblem(f"regularization.spectral_norm.pattern: {spec.pattern!r} matches no weight of two dimensions or more")
    for module, name, weight in chosen:
        parametrize.register_parametrization(module, name, Bounded(weight, spec.n_power_iterations), unsafe=True)
    return model


def divided(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A model's tensors as it computes with them: each weight divided, and no estimates, whatever there were."""
    made = dict(tensors)
    for at in [name.removesuffix(".u") for name in tensors if name.endswith(TAIL)]:
        name, u, v = plain(f"{at.removesuffix('.0')}.original"), made.pop(f"{at}.u"), made.pop(f"{at}.v")
        made[name] = made[name] / torch.dot(u, made[name].flatten(1) @ v)
    return made


def bounds_of(model: nn.Module) -> Iterator[tuple[Bounded, nn.Parameter]]:
    """Each estimate, with the weight that it is of."""
    for module in model.modules():
        if isinstance(module, parametrize.ParametrizationList):
            for part in module:
                if isinstance(part, Bounded) and isinstance(module.original, nn.Parameter):
                    yield part, module.original
