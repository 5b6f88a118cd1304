"""How weights move. Built by `worker.trainer.optimizer`.

Each says what it remembers of a weight, from which the plan counts memory and checkpoints. Formulas are those of PyTorch.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stoker.spec.base import Count, Decay, Fraction, Knob, NonNegative, Positive, Spec
from stoker.spec.optimizer.param_groups import Grouped, Pattern, Shape, Treatment


class SGD(Grouped):
    """Stochastic gradient descent with momentum."""

    type: Literal["sgd"] = "sgd"
    """Which optimizer this is."""
    lr: Annotated[Positive, Knob(affects=("quality",), rows=("OPT-02", "OPT-04"))] = 0.1
    """Peak learning rate; the schedule multiplies it."""
    momentum: Annotated[Decay, Knob(affects=("memory", "quality"), rows=("OPT-03",))] = 0.0
    """Share of the previous update carried into this one."""
    dampening: Annotated[Fraction, Knob(affects=("quality",), rows=("OPT-03",))] = 0.0
    """Share of the gradient kept out of the momentum."""
    nesterov: Annotated[bool, Knob(affects=("quality",), rows=("OPT-16",))] = False
    """Look ahead along the momentum; needs momentum above 0 and dampening 0."""

    def remembered(self, shape: Shape, treatment: Treatment) -> Mapping[str, Shape]:
        return {"momentum_buffer": shape} if self.momentum else {}

    @property
    def momentum_share(self) -> float:
        return self.momentum


class Moments(Grouped):
    """What optimizers that keep moving averages of gradients and of their squares share."""

    beta1: Annotated[Decay, Knob(affects=("quality",), rows=("OPT-06",))] = 0.9
    """Decay of the first moment."""
    beta2: Annotated[Decay, Knob(affects=("quality",), rows=("OPT-07",))] = 0.999
    """Decay of the second moment."""
    eps: Annotated[Positive, Knob(affects=("quality",), rows=("OPT-08",))] = 1e-8
    """Added to the root of the second moment."""

    def remembered(self, shape: Shape, treatment: Treatment) -> Mapping[str, Shape]:
        return {"step": (), "exp_avg": shape, "exp_avg_sq": shape}

    @property
    def momentum_share(self) -> float:
        return self.beta1


class Adam(Moments):
    """Adaptive moments (Kingma and Ba 2015)."""

    type: Literal["adam"] = "adam"
    """Which optimizer this is."""
    lr: Annotated[Positive, Knob(affects=("quality",), rows=("OPT-02", "OPT-05"))] = 1e-3
    """Peak learning rate; the schedule multiplies it."""
    amsgrad: Annotated[bool, Knob(affects=("memory", "quality"), rows=("OPT-05",))] = False
    """Use the largest second moment seen (Reddi et al. 2018)."""
    decoupled: Annotated[bool, Knob(affects=("quality",), rows=("OPT-18",))] = False
    """Take weight decay times the learning rate off each weight, past the moments, as adamw does."""

    def remembered(self, shape: Shape, treatment: Treatment) -> Mapping[str, Shape]:
        return {**super().remembered(shape, treatment), **({"max_exp_avg_sq": shape} if self.amsgrad else {})}


class AdamW(Moments):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    type: Literal["adamw"] = "adamw"
    """Which optimizer this is."""
    lr: Annotated[Positive, Knob(affects=("quality",), rows=("OPT-02", "OPT-05"))] = 1e-3
    """Peak learning rate; the schedule multiplies it."""
    weight_decay: Annotated[NonNegative, Knob(affects=("quality",), rows=("OPT-18",))] = 0.01
    """Share of each weight, times the learning rate, taken off per step."""
    amsgrad: Annotated[bool, Knob(affects=("memory", "quality"), rows=("OPT-05",))] = False
    """Use the largest second moment seen (Reddi et al. 2018)."""

    def remembered(self, shape: Shape, treatment: Treatment) -> Mapping[str, Shape]:
        return {**super().remembered(shape, treatment), **({"max_exp_avg_sq": shape} if self.amsgrad else {})}


class NAdam(Moments):
    """Adam with Nesterov momentum (Dozat 2016)."""

    type: Literal["nadam"] = "nadam"
    """Which optimizer this is."""
    lr: Annotated[Positive, Knob(affects=("quality",), rows=("OPT-02", "OPT-15"))] = 2e-3
    """Peak learning rate; the schedule multiplies it."""
    momentum_decay: Annotated[NonNegative, Knob(affects=("quality",), rows=("OPT-15", "OPT-16"))] = 4e-3
    """How fast the momentum of the first steps grows to beta1: at step t it is beta1 x (1 - 0.96^(t x momentum_decay) / 2)."""
    decoupled: Annotated[bool, Knob(affects=("quality",), rows=("OPT-18",))] = False
    """Take weight decay times the learning rate off each weight, past the moments, as adamw does."""

    def remembered(self, shape: Shape, treatment: Treatment) -> Mapping[str, Shape]:
        return {**super().remembered(shape, treatment), "mu_product": ()}


class RAdam(Moments):
    """Adam that waits with adapting until its second moment says something (Liu et al. 2020)."""

    type: Literal["radam"] = "radam"
    """Which optimizer this is."""
    lr: Annotated[Positive, Knob(affects=("quality",), rows=("OPT-02", "OPT-17"))] = 1e-3
    """Peak learning rate; the schedule multiplies it."""
    decoupled: Annotated[bool, Knob(affects=("quality",), rows=("OPT-18",))] = False
    """Take weight decay times the learning rate off each weight, past the moments, as adamw does."""


class Adamax(Moments):
    """Adam measured by the largest gradient instead of their squares (Kingma and Ba 2015, section 7)."""

    type: Literal["adamax"] = "adamax"
    """Which optimizer this is."""
    lr: Annotated[Positive, Knob(affects=("quality",), rows=("OPT-02", "OPT-17"))] = 2e-3
    """Peak learning rate; the schedule multiplies it."""
    beta2: Annotated[Decay, Knob(affects=("quality",), rows=("OPT-07",))] = 0.999
    """Decay of the largest gradient seen."""
    eps: Annotated[Positive, Knob(affects=("quality",), rows=("OPT-08",))] = 1e-8
    """Added to the size of each gradient."""

    def remembered(self, shape: Shape, treatment: Treatment) -> Mapping[str, Shape]:
        return {"step": (), "exp_avg": shape, "exp_inf": shape}


class RMSprop(Grouped):
    """Gradients divided by the root of the moving average of their squares (Tieleman and Hinton 2012)."""

    type: Literal["rmsprop"] = "rmsprop"
    """Which optimizer this is."""
    lr: Annotated[Positive, Knob(affects=("quality",), rows=("OPT-02", "OPT-09"))] = 0.01
    """Peak learning rate; the schedule multiplies it."""
    rho: Annotated[Decay, Knob(affects=("quality",), rows=("OPT-10",))] = 0.99
    """Decay of the average of squares; PyTorch calls it alpha, and Keras begins with 0.9."""
    eps: Annotated[Positive, Knob(affects=("quality",), rows=("OPT-11",))] = 1e-8
    """Added to the root of the average of squares, not under it."""
    momentum: Annotated[Decay, Knob(affects=("memory", "quality"), rows=("OPT-03", "OPT-09"))] = 0.0
    """Share of the previous update carried into this one."""
    centered: Annotated[bool, Knob(affects=("memory", "quality"), rows=("OPT-09",))] = False
    """Divide by the standard deviation of the gradients: take the square of their average off first."""

    def remembered(self, shape: Shape, treatment: Treatment) -> Mapping[str, Shape]:
        more = {"momentum_buffer": self.momentum > 0, "grad_avg": self.centered}
        return {"step": (), "square_avg": shape, **{name: shape for name, kept in more.items() if kept}}

    @property
    def momentum_share(self) -> float:
        return self.momentum


class Adagrad(Grouped):
    """Gradients divided by the root of the sum of all their squares (Duchi et al. 2011)."""

    type: Literal["adagrad"] = "adagrad"
    """Which optimizer this is."""
    lr: Annotated[Positive, Knob(affects=("quality",), rows=("OPT-02", "OPT-12"))] = 0.01
    """Peak learning rate; the schedule multiplies it."""
    eps: Annotated[Positive, Knob(affects=("quality",), rows=("OPT-13",))] = 1e-10
    """Added to the root of the sum of squares."""
    lr_decay: Annotated[NonNegative, Knob(affects=("quality",), rows=("OPT-12",))] = 0.0
    """At step t, from 0, the learning rate is divided by 1 + t x lr_decay, beside what the schedule does."""
    initial_accumulator_value: Annotated[NonNegative, Knob(affects=("quality",), rows=("OPT-12",))] = 0.0
    """What the sum of squares starts from."""

    def remembered(self, shape: Shape, treatment: Treatment) -> Mapping[str, Shape]:
        return {"step": (), "sum": shape}


class Adadelta(Grouped):
    """Steps as large as those before them, whatever the scale of gradients (Zeiler 2012)."""

    type: Literal["adadelta"] = "adadelta"
    """Which optimizer this is."""
    lr: Annotated[Positive, Knob(affects=("quality",), rows=("OPT-02", "OPT-14"))] = 1.0
    """Peak learning rate; the schedule multiplies it."""
    rho: Annotated[Decay, Knob(affects=("quality",), rows=("OPT-14",))] = 0.9
    """Decay of the averages of squared gradients and of squared steps."""
    eps: Annotated[Positive, Knob(affects=("quality",), rows=("OPT-14",))] = 1e-6
    """Added under both roots; the first steps are about as large as its root."""

    def remembered(self, shape: Shape, treatment: Treatment) -> Mapping[str, Shape]:
        return {"step": (), "square_avg": shape, "acc_delta": shape}


class Adafactor(Grouped):
    """Adaptive steps with a second moment kept as sums of rows and of columns (Shazeer and Stern 2018)."""

    type: Literal["adafactor"] = "adafactor"
    """Which optimizer this is."""
    lr: Annotated[Positive, Knob(affects=("quality",), rows=("OPT-02", "OPT-17"))] = 0.01
    """Peak learning rate, in shares of a weight's own size; at step t, from 1, it is at most 1 / root of t."""
    weight_decay: Annotated[NonNegative, Knob(affects=("quality",), rows=("OPT-18",))] = 0.0
    """Share of each weight, times the learning rate, taken off per step."""
    beta2_decay: Annotated[Fraction, Knob(affects=("quality",), rows=("OPT-17",))] = 0.8
    """Power c of the second moment's decay: at step t, from 1, it is 1 - 1 / t^c."""
    eps: Annotated[Positive, Knob(affects=("quality",), rows=("OPT-17",))] = 1e-7
    """Least root of the second moment, and least mean of its rows."""
    least_size: Annotated[Positive, Knob(affects=("quality",), rows=("OPT-17",))] = 1e-3
    """Least size of a weight, as the root of its mean square, that its steps are measured by."""
    clip_threshold: Annotated[Annotated[float, Field(ge=1, le=1e12)], Knob(affects=("quality",), rows=("OPT-17",))] = 1.0
    """Largest root mean square of a step before it is scaled."""

    def remembered(self, shape: Shape, treatment: Treatment) -> Mapping[str, Shape]:
        if len(shape) < 2:
            return {"step": (), "variance": shape}
        return {"step": (), "row_var": (*shape[:-1], 1), "col_var": (*shape[:-2], 1, shape[-1])}


class Lion(Grouped):
    """Steps of one size in the direction that momentum and gradient agree on (Chen et al. 2023)."""

    type: Literal["lion"] = "lion"
    """Which optimizer this is."""
    lr: Annotated[Positive, Knob(affects=("quality",), rows=("OPT-02", "OPT-01"))] = 1e-4
    """Peak learning rate; the schedule multiplies it."""
    weight_decay: Annotated[NonNegative, Knob(affects=("quality",), rows=("OPT-18",))] = 0.0
    """Share of each weight, times the learning rate, taken off per step."""
    beta1: Annotated[Decay, Knob(affects=("quality",), rows=("OPT-06",))] = 0.9
    """Share of the momentum in what the step takes the sign of."""
    beta2: Annotated[Decay, Knob(affects=("quality",), rows=("OPT-07",))] = 0.99
    """Decay of the momentum."""

    def remembered(self, shape: Shape, treatment: Treatment) -> Mapping[str, Shape]:
        return {"exp_avg": shape}

    @property
    def momentum_share(self) -> float:
        return self.beta1


class Companion(Spec):
    """The AdamW that moves what muon is not for: norms and biases, embeddings, and the output layer."""

    lr: Annotated[Positive, Knob(affects=("quality",), rows=("OPT-02",))] = 3e-4
    """Peak learning rate; the schedule multiplies it as it does that of muon."""
    beta1: Annotated[Decay, Knob(affects=("quality",), rows=("OPT-06",))] = 0.9
    """Decay of the first moment."""
    beta2: Annotated[Decay, Knob(affects=("quality",), rows=("OPT-07",))] = 0.95
    """Decay of the second moment."""
    eps: Annotated[Positive, Knob(affects=("quality",), rows=("OPT-08",))] = 1e-8
    """Added to the root of the second moment."""
    weight_decay: Annotated[NonNegative, Knob(affects=("quality",), rows=("OPT-18",))] = 0.01
    """Share of each weight, times the learning rate, taken off per step."""
    patterns: Annotated[tuple[Pattern, ...], Knob(affects=("quality",), rows=("OPT-01",)), Field(max_length=1000)] = (
        "*tokens.*",
        "*positions.*",
        "*segments.*",
        "*head.*",
    )
    """Matrices that it moves too, by their names, beside the last layer of a stack of layers and all that has one dimension."""


OUTPUT_LAYER = re.compile(r"\d+(\.\w+)?\.weight")
"""Name of a member of a stack of layers; the last of them gives the outputs."""


class Muon(Grouped):
    """Momentum made orthogonal, for the matrices of hidden layers (Jordan et al. 2024); the rest has a companion."""

    asks_names: ClassVar[bool] = True
    type: Literal["muon"] = "muon"
    """Which optimizer this is."""
    lr: Annotated[Positive, Knob(affects=("quality",), rows=("OPT-02", "OPT-01"))] = 0.02
    """Peak learning rate; the schedule multiplies it."""
    weight_decay: Annotated[NonNegative, Knob(affects=("quality",), rows=("OPT-18",))] = 0.0
    """Share of each weight, times the learning rate, taken off per step."""
    momentum: Annotated[Decay, Knob(affects=("quality",), rows=("OPT-03",))] = 0.95
    """Share of the previous update carried into this one."""
    nesterov: Annotated[bool, Knob(affects=("quality",), rows=("OPT-16",))] = True
    """Look ahead along the momentum."""
    newton_schulz_steps: Annotated[Annotated[Count, Field(le=20)], Knob("iterations", ("speed", "quality"), ("OPT-01",))] = 5
    """Iterations that bring the singular values of a step near one."""
    newton_schulz_precision: Annotated[Literal["bf16", "weights"], Knob(affects=("speed", "quality"), rows=("OPT-01",))] = "bf16"
    """Number format of these iterations: bfloat16, or that of the weights."""
    adjust_lr: Annotated[Literal["original", "match_rms_adamw"], Knob(affects=("quality",), rows=("OPT-02",))] = "original"
    """Factor for a matrix of a rows and b columns: root of max(1, a / b), or 0.2 x root of max(a, b), at which the rate of an adamw fits."""
    companion: Companion = Companion()
    """The AdamW that moves what muon is not for."""

    def treatments(self, weights: Iterable[tuple[str, Shape]]) -> Iterator[Treatment]:
        weights = list(weights)
        last = next((name for name, shape in reversed(weights) if len(shape) > 1), "")
        for (name, shape), usual in zip(weights, super().treatments(weights), strict=True):
            other = any(fnmatchcase(name, pattern) for pattern in self.companion.patterns)
            if len(shape) > 1 and not other and not (name == last and OUTPUT_LAYER.fullmatch(name)):
                yield usual
                continue
            own = self.companion.weight_decay if self.decay_norms_and_biases or len(shape) > 1 else 0.0
            set_apart = [g.weight_decay for g in self.param_groups if fnmatchcase(name, g.pattern)][:1]
            decay = own if not set_apart or set_apart[0] is None else set_apart[0]
            yield Treatment(usual.lr_scale * self.companion.lr / self.lr, decay, companion=True)

    def remembered(self, shape: Shape, treatment: Treatment) -> Mapping[str, Shape]:
        return {"step": (), "exp_avg": shape, "exp_avg_sq": shape} if treatment.companion else {"momentum_buffer": shape}

    @property
    def momentum_share(self) -> float:
        return self.momentum


Optimizer = Annotated[
    SGD | Adam | AdamW | NAdam | RAdam | Adamax | RMSprop | Adagrad | Adadelta | Adafactor | Lion | Muon,
    Field(discriminator="type"),
]
