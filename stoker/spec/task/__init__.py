"""What is to be learned. Built by `worker.trainer.task`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Count, Fraction, Knob, Natural, Size, Spec
from stoker.spec.optimizer import Optimizer
from stoker.spec.task.multi_task import MultiTask

Column = Annotated[str, Field(min_length=1, max_length=256)]


class Classification(Spec):
    """One of several classes per sample."""

    type: Literal["classification"] = "classification"
    """Which task this is."""
    num_classes: Annotated[Annotated[int, Field(ge=2, le=100_000)] | None, Knob("classes", rows=("ARCH-27",))] = None
    """How many classes the head tells apart; unset, counted in the data set."""
    target: Annotated[Column | None, Knob(rows=("ARCH-27",))] = None
    """Column that holds the class, for tables; images and arrays carry their own labels."""


class Regression(Spec):
    """One or several real numbers per sample."""

    type: Literal["regression"] = "regression"
    """Which task this is."""
    num_outputs: Annotated[Size | None, Knob("numbers", rows=("ARCH-27",))] = None
    """How many numbers the head predicts; unset, counted in the data set."""
    target: Annotated[Column | tuple[Column, ...] | None, Knob(rows=("ARCH-27",))] = None
    """Column or columns to predict, for tables; arrays carry their own targets."""


class Multilabel(Spec):
    """Several labels per sample, each there or not; with one label, a yes or no from a single logit."""

    type: Literal["multilabel"] = "multilabel"
    """Which task this is."""
    num_labels: Annotated[Annotated[int, Field(ge=1, le=100_000)] | None, Knob("labels", rows=("ARCH-27",))] = None
    """How many labels the head decides on; unset, counted in the data set."""
    target: Annotated[Column | tuple[Column, ...] | None, Knob(rows=("ARCH-27",))] = None
    """Column or columns of 0 and 1, for tables; arrays carry their own targets."""


class CausalLM(Spec):
    """The next token from those before it."""

    type: Literal["causal_lm"] = "causal_lm"
    """Which task this is."""


Share = Annotated[float, Field(gt=0, le=1)]


class MaskedLM(Spec):
    """The tokens that are hidden, from those around them (Devlin et al. 2019). The vocabulary has one token more, which stands for them."""

    type: Literal["masked_lm"] = "masked_lm"
    """Which task this is."""
    mask_rate: Annotated[Share, Knob("share of tokens", ("quality",), ("ARCH-12", "INIT-08"))] = 0.15
    """Tokens of each window that are hidden and asked for, at least one; others in each epoch, the same whenever a split is judged."""
    masked_share: Annotated[Fraction, Knob("share", ("quality",), ("ARCH-12",))] = 0.8
    """Of the tokens asked for, those whose place the mask takes."""
    random_share: Annotated[Fraction, Knob("share", ("quality",), ("ARCH-12",))] = 0.1
    """Of the tokens asked for, those whose place a random token takes; what remains stays as it is."""


class Generation(Spec):
    """New samples like those of the data set, of noise, by a gan; labels are not read."""

    type: Literal["gan"] = "gan"
    """Which task this is."""
    discriminator_steps: Annotated[Annotated[Count, Field(le=100)], Knob("steps", ("speed", "quality"), ("ARCH-24",))] = 1
    """The discriminator learns in every step, the generator in the last of each so many."""
    discriminator_optimizer: Annotated[Optimizer | None, Knob(affects=("memory", "quality"), rows=("ARCH-24",))] = None
    """How the weights of the discriminator move, beside `optimizer` for the generator's; the schedule multiplies both rates; unset, the same."""
    samples: Annotated[Annotated[Natural, Field(le=10_000)], Knob("samples", (), ("ARCH-24",))] = 64
    """Generated samples that the run leaves behind as samples.safetensors, and as samples.png where they are pictures; 0 for none."""


SingleTask = Classification | Multilabel | Regression | CausalLM | MaskedLM | Generation
Task = Annotated[
    Classification | Multilabel | Regression | CausalLM | MaskedLM | Generation | MultiTask, Field(discriminator="type")
]
