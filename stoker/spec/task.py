"""What is to be learned. Built by `worker.trainer.task`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec._base import Knob, Size, Spec
from stoker.spec.multi_task import MultiTask

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


SingleTask = Classification | Multilabel | Regression | CausalLM
Task = Annotated[Classification | Multilabel | Regression | CausalLM | MultiTask, Field(discriminator="type")]
