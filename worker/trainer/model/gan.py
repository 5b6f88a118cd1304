"""GAN specs into two networks."""

import math

import torch
from torch import nn

from stoker.spec.model import CNN, GAN, MLP, Layers
from stoker.spec.model.gan import Discriminator, Generator
from stoker.spec.model.shapes import Form, Misfit, infer
from worker.trainer.errors import SpecProblem
from worker.trainer.model.cnn import build_cnn
from worker.trainer.model.layers import build_layers, build_stack
from worker.trainer.model.mlp import build_mlp
from worker.trainer.model.parts import build_activation
from worker.trainer.model.sharing import share


class Drawing(nn.Module):
    """The generator as it is trained and judged: rows of noise, of which it reads the first `latent`, to samples as rows."""

    def __init__(self, net: nn.Module, latent: int, bend: nn.Module) -> None:
        super().__init__()
        self.net, self.latent, self.bend = net, latent, bend

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.bend(self.net(noise[:, : self.latent]).flatten(1))
        return out


class Judging(nn.Module):
    """The discriminator as it is trained and asked: samples as rows to a number each."""

    def __init__(self, net: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.net, self.shape = net, shape

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.net(samples.view(-1, *self.shape)).flatten()
        return out


class GanModel(nn.Module):
    """Both networks. `drawing` and `judging` are views of them, with no weights of their own."""

    def __init__(
        self, generator: nn.Module, discriminator: nn.Module, latent: int, bend: nn.Module, shape: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self._views = (Drawing(generator, latent, bend), Judging(discriminator, shape))

    @property
    def drawing(self) -> Drawing:
        return self._views[0]

    @property
    def judging(self) -> Judging:
        return self._views[1]

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        """(n, latent or more) noise → (n, numbers of a sample)."""
        out: torch.Tensor = self.drawing(noise)
        return out


def build_gan(spec: GAN, shape: tuple[int, ...]) -> GanModel:
    """For samples of a shape. Raises SpecProblem naming the network that does not fit."""
    generator = share(_generator(spec.generator, spec.latent_dim, math.prod(shape)), spec.generator.sharing)
    discriminator = share(_discriminator(spec.discriminator, shape), spec.discriminator.sharing)
    return GanModel(generator, discriminator, spec.latent_dim, build_activation(spec.output), shape)


def _generator(spec: Generator, latent: int, numbers: int) -> nn.Module:
    if isinstance(spec, MLP):
        return build_mlp(spec, (latent,), numbers)
    start = Form((latent,))
    try:
        end = infer(spec.layers, start).shape
    except Misfit as misfit:
        raise SpecProblem(f"model.generator.layers: {misfit.sentence}") from misfit
    if math.prod(end) != numbers:
        raise SpecProblem(f"model.generator: the last layer gives {math.prod(end)} numbers, and a sample has {numbers}")
    return build_stack(spec.layers, start, end, None, spec.init)


def _discriminator(spec: Discriminator, shape: tuple[int, ...]) -> nn.Module:
    match spec:
        case MLP():
            return build_mlp(spec, shape, 1)
        case Layers():
            return build_layers(spec, shape, 1, text=False)
        case CNN():
            return build_cnn(spec, shape, 1)
