"""In which number format the arithmetic runs. Built by `worker.trainer.precision`."""

from typing import Annotated, Literal

from stoker.spec._base import Knob, Spec


class Precision(Spec):
    mode: Annotated[Literal["fp32", "bf16_mixed"], Knob(affects=("memory", "speed", "quality"), rows=("TRAIN-07",))] = "fp32"
    """fp32 throughout, or bfloat16 matrix products with fp32 weights, gradients and optimizer."""
