"""What makes two runs of one spec the same run. Honoured by `worker.trainer.reproducibility`."""

from typing import Annotated

from pydantic import Field

from stoker.spec.base import Knob, Spec

Seed = Annotated[int, Field(ge=0, le=2**53 - 1)]


class Reproducibility(Spec):
    seed: Annotated[Seed, Knob(affects=("quality",), rows=("TRAIN-09",))] = 0
    """Seeds weights and dropout; rank r draws from its own stream derived from it."""
    data_seed: Annotated[Seed | None, Knob(affects=("quality",), rows=("TRAIN-09",))] = None
    """Seeds the split and the order of samples; unset, it is the seed."""
    deterministic: Annotated[bool, Knob(affects=("speed",), rows=("TRAIN-09",))] = True
    """Use only deterministic kernels, so that two runs on the same hardware are bitwise equal."""
