"""What is asked of weights beside a small loss. Built by `worker.trainer.regularization`.

Each penalty is strength x what its sentence says, added to the mean loss; the textbook's lambda is called `strength`, since lambda
is a reserved word of the language that reads job files here.
"""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Fraction, Knob, Positive, Spec
from stoker.spec.optimizer.param_groups import Pattern


class Penalty(Spec):
    """What every penalty shares."""

    strength: Annotated[Positive, Knob("lambda", ("quality",), ("REG-01",))]
    """Factor on the penalty before it is added to the mean loss."""
    pattern: Annotated[Pattern | None, Knob(affects=("quality",), rows=("REG-02", "REG-03"))] = None
    """Which weights by their names in the model, with `*` and `?`; unset, those of two dimensions or more: no biases, no norms."""


class Proximal(Penalty):
    """A penalty that has a corner at zero, where weights may come to rest."""

    proximal: Annotated[bool, Knob(affects=("quality",), rows=("REG-02",))] = False
    """Shrink weights after each step by learning rate x strength, to exactly zero at the end, instead of adding to gradients."""


class L1(Proximal):
    """Sum of absolute weights (lasso, Tibshirani 1996)."""


class L2(Penalty):
    """Sum of squared weights (ridge): with SGD the same as a weight decay of twice the strength."""


class ElasticNet(Proximal):
    """Absolute and squared weights mixed (Zou and Hastie 2005): l1_ratio x L1 + (1 - l1_ratio) x L2, each as defined here."""

    l1_ratio: Annotated[Fraction, Knob("share", ("quality",), ("REG-04",))] = 0.5
    """Share of the absolute weights."""


class GroupLasso(Proximal):
    """Sum of norms of rows or columns, each times the root of its size (Yuan and Lin 2006): whole units or inputs go to zero."""

    groups: Annotated[Literal["rows", "columns"], Knob(affects=("quality",), rows=("REG-04",))] = "rows"
    """What goes to zero together: all weights of an output, or all weights of an input."""


class Orthogonal(Penalty):
    """Squared distance of each matrix times its transpose from the identity, on its shorter side (Brock et al. 2017)."""


class SpectralNorm(Spec):
    """Divide matrices by their largest singular value, so that a layer cannot stretch its input (Miyato et al. 2018)."""

    pattern: Annotated[Pattern | None, Knob(affects=("quality",), rows=("ARCH-23",))] = None
    """Which weights by their names in the model, with `*` and `?`; unset, all of two dimensions or more."""
    n_power_iterations: Annotated[Annotated[int, Field(ge=1, le=100)], Knob("iterations", ("speed", "quality"), ("ARCH-23",))] = 1
    """Power iterations per training step that bring the estimate of the singular value closer."""


class Regularization(Spec):
    """Penalties add up."""

    l1: Annotated[L1 | None, Knob(affects=("quality",), rows=("REG-01", "REG-02", "REG-09"))] = None
    """Penalty on absolute weights; null for none."""
    l2: Annotated[L2 | None, Knob(affects=("quality",), rows=("REG-01", "REG-03"))] = None
    """Penalty on squared weights; null for none."""
    elastic_net: Annotated[ElasticNet | None, Knob(affects=("quality",), rows=("REG-04",))] = None
    """Penalty on both; null for none."""
    group_lasso: Annotated[GroupLasso | None, Knob(affects=("quality",), rows=("REG-04",))] = None
    """Penalty on whole rows or columns; null for none."""
    orthogonal: Annotated[Orthogonal | None, Knob(affects=("quality", "speed"), rows=("REG-04",))] = None
    """Penalty on matrices that are not orthogonal; null for none."""
    spectral_norm: Annotated[SpectralNorm | None, Knob(affects=("quality", "speed", "memory"), rows=("ARCH-23",))] = None
    """Bound on how far layers stretch; null for none."""
