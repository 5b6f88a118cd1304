"""Rescaling of input features, fitted on the training split. Built by `worker.trainer.data.normalization`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Knob, Spec


class Standard(Spec):
    """Mean zero and variance one."""

    type: Literal["standard"] = "standard"
    """Which rescaling this is."""
    per_channel: Annotated[bool, Knob(affects=("quality",), rows=("DATA-14",))] = True
    """One mean and deviation per feature (per channel for pictures) instead of one for all."""


class MinMax(Spec):
    """From the training minimum and maximum to 0 and 1."""

    type: Literal["minmax"] = "minmax"
    """Which rescaling this is."""
    per_channel: Annotated[bool, Knob(affects=("quality",), rows=("DATA-13",))] = True
    """One range per feature (per channel for pictures) instead of one for all."""


Normalization = Annotated[Standard | MinMax, Field(discriminator="type")]
