"""A generative adversarial network (Goodfellow et al. 2014): two networks with opposite aims. Built by `worker.trainer.model.gan`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Knob, Size, Spec
from stoker.spec.model.cnn import CNN
from stoker.spec.model.layers import Layers
from stoker.spec.model.mlp import MLP
from stoker.spec.model.sharing import Share

Generator = MLP | Layers
Discriminator = MLP | Layers | CNN


class GAN(Spec):
    """A generator that makes samples of noise, and a discriminator that tells them from those of the data set."""

    type: Literal["gan"] = "gan"
    """Which architecture this is."""
    latent_dim: Annotated[Size, Knob("numbers", ("memory", "quality"), ("ARCH-24",))] = 64
    """Random numbers that each sample is made of."""
    latent: Annotated[Literal["normal", "uniform"], Knob(affects=("quality",), rows=("ARCH-24",))] = "normal"
    """How they are distributed: normal with variance 1, or uniform between -1 and 1."""
    generator: Annotated[
        Annotated[Generator, Field(discriminator="type")], Knob(affects=("memory", "speed", "quality"), rows=("ARCH-24",))
    ] = MLP()
    """Makes a sample of latent_dim numbers; layers must end with as many numbers as a sample has, in any shape."""
    output: Annotated[Literal["identity", "sigmoid", "tanh"], Knob(affects=("quality",), rows=("ARCH-24",))] = "identity"
    """What bends the generator's last numbers: nothing; sigmoid into 0 to 1, tanh into -1 to 1, for data within these bounds."""
    discriminator: Annotated[
        Annotated[Discriminator, Field(discriminator="type")], Knob(affects=("memory", "speed", "quality"), rows=("ARCH-24",))
    ] = MLP(activation="leaky_relu")
    """Reads a sample and says one number, large where the sample seems to be of the data set; layers must end with that one number."""

    @property
    def sharing(self) -> tuple[Share, ...]:
        """Parts that share weights, in either network."""
        return (*self.generator.sharing, *self.discriminator.sharing)
