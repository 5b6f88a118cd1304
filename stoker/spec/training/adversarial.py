"""Learning from samples that are turned against the model. Built by `worker.trainer.training.adversarial`.

Epsilon, step sizes and the clipping range are in the units in which the model sees its inputs, after normalization.
"""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Fraction, Knob, NonNegative, Positive, Spec

Signed = Annotated[float, Field(ge=-1e12, le=1e12)]


class InputRange(Spec):
    """What inputs may be at all, as pixels between 0 and 1."""

    low: Annotated[Signed, Knob("input units", ("quality",), ("TRAIN-11",))] = 0.0
    """Smallest value of a disturbed input."""
    high: Annotated[Signed, Knob("input units", ("quality",), ("TRAIN-11",))] = 1.0
    """Largest value of a disturbed input."""


class Attack(Spec):
    """What every attack shares."""

    epsilon: Annotated[NonNegative, Knob("input units", ("quality",), ("TRAIN-11",))] = 0.03
    """Largest norm of the disturbance of a sample."""
    norm: Annotated[Literal["linf", "l2"], Knob(affects=("quality",), rows=("TRAIN-11",))] = "linf"
    """How the disturbance is measured: by its largest element, or by its Euclidean length."""
    clip: Annotated[InputRange | None, Knob(affects=("quality",), rows=("TRAIN-11",))] = None
    """Range that disturbed inputs stay in; null for none."""


class FGSM(Attack):
    """One step along the sign of the gradient (Goodfellow et al. 2015)."""

    method: Literal["fgsm"] = "fgsm"
    """Which attack this is."""
    ratio: Annotated[Fraction, Knob("share of the batch", ("speed", "quality"), ("TRAIN-11",))] = 1.0
    """Share of each micro-batch that is attacked, its first samples; the others are learned as they are."""


class PGD(Attack):
    """Several steps from a random place, each followed by a projection (Madry et al. 2018)."""

    method: Literal["pgd"] = "pgd"
    """Which attack this is."""
    steps: Annotated[Annotated[int, Field(ge=1, le=1000)], Knob("attack steps", ("speed", "quality"), ("TRAIN-11",))] = 7
    """Steps of the attack, each a pass forwards and backwards."""
    step_size: Annotated[Positive | None, Knob("input units", ("quality",), ("TRAIN-11",))] = None
    """Length of a step; unset, 2.5 x epsilon / steps."""
    random_start: Annotated[bool, Knob(affects=("quality",), rows=("TRAIN-11",))] = True
    """Begin at a random place within epsilon instead of at the sample."""
    ratio: Annotated[Fraction, Knob("share of the batch", ("speed", "quality"), ("TRAIN-11",))] = 1.0
    """Share of each micro-batch that is attacked, its first samples; the others are learned as they are."""


class FreeAttack(Attack):
    """The gradient of each step serves the weights and the attack (Shafahi et al. 2019); the disturbance is carried on.

    Each batch is used for `replays` optimizer steps in a row, so that as many epochs go through the data 1 / replays as often.
    """

    method: Literal["free"] = "free"
    """Which attack this is."""
    replays: Annotated[Annotated[int, Field(ge=1, le=100)], Knob("optimizer steps", ("speed", "quality"), ("TRAIN-11",))] = 4
    """Optimizer steps that use the same batch."""
    step_size: Annotated[Positive | None, Knob("input units", ("quality",), ("TRAIN-11",))] = None
    """Length of a step of the attack; unset, epsilon."""


Adversarial = Annotated[FGSM | PGD | FreeAttack, Field(discriminator="method")]
