"""What generator and discriminator of a gan minimise. Built by `worker.trainer.loss.adversarial`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stoker.spec.base import Knob, NonNegative, Spec


class Contested(Spec):
    """What both networks minimise; samples weigh the same."""

    sample_weight_normalization: ClassVar[None] = None


class NonSaturating(Contested):
    """Cross-entropy of real and generated samples, and for the generator of generated ones called real (Goodfellow et al. 2014)."""

    type: Literal["non_saturating"] = "non_saturating"
    """Which loss this is."""
    label_smoothing: Annotated[Annotated[float, Field(ge=0, lt=0.5)], Knob(affects=("quality",), rows=("ARCH-24",))] = 0.0
    """The discriminator calls real samples real with probability 1 minus this, so that it is never too sure (Salimans et al. 2016)."""


class Hinge(Contested):
    """Real samples above 1 and generated ones below -1 cost the discriminator nothing (Lim and Ye 2017)."""

    type: Literal["hinge"] = "hinge"
    """Which loss this is."""


class Wasserstein(Contested):
    """How far generated samples are from real ones, by a discriminator of bounded slope (Arjovsky et al. 2017)."""

    type: Literal["wasserstein"] = "wasserstein"
    """Which loss this is."""
    gradient_penalty: Annotated[NonNegative, Knob(affects=("memory", "speed", "quality"), rows=("ARCH-24",))] = 10.0
    """Factor of (slope - 1) squared at places between real and generated samples (Gulrajani et al. 2017); 0 where regularization.spectral_norm bounds it."""
