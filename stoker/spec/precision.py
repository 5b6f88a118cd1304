"""In which number format the arithmetic runs. Built by `worker.trainer.precision`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Count, Fraction, Knob, Positive, Spec

Mode = Literal["fp32", "tf32", "bf16_mixed", "fp16_mixed", "bf16_pure", "fp16_pure", "fp8"]
Factor = Annotated[float, Field(ge=1, le=1024)]


class DynamicScale(Spec):
    """Halve when gradients overflow, double after a while without (Micikevicius et al. 2018)."""

    mode: Literal["dynamic"] = "dynamic"
    """Which scaling this is."""
    init_scale: Annotated[Positive, Knob("factor", ("quality",), ("TRAIN-06",))] = 65536.0
    """Factor of the loss at the first step."""
    growth_factor: Annotated[Factor, Knob("factor", ("quality",), ("TRAIN-06",))] = 2.0
    """What the scale is multiplied by after growth_interval steps without overflow."""
    backoff_factor: Annotated[Fraction, Knob("factor", ("quality",), ("TRAIN-06",))] = 0.5
    """What the scale is multiplied by after an overflow, whose step is skipped."""
    growth_interval: Annotated[Count, Knob("optimizer steps", ("quality",), ("TRAIN-06",))] = 2000
    """Steps without overflow after which the scale grows."""


class StaticScale(Spec):
    """The same factor throughout; a step whose gradients overflow is skipped."""

    mode: Literal["static"] = "static"
    """Which scaling this is."""
    scale: Annotated[Positive, Knob("factor", ("quality",), ("TRAIN-06",))] = 1024.0
    """Factor of the loss before the backward pass; gradients are divided by it again."""


LossScale = Annotated[DynamicScale | StaticScale, Field(discriminator="mode")]


class Precision(Spec):
    """Mixed: weights, gradients and optimizer in fp32, products in 16 bits. Pure: all of them in 16 bits, losses and BatchNorm in fp32."""

    mode: Annotated[Mode, Knob(affects=("memory", "speed", "quality"), rows=("TRAIN-04", "TRAIN-05", "TRAIN-07"))] = "fp32"
    """Number format: fp32 throughout, tf32 products on a GPU, 16-bit products with fp32 weights (mixed), or 16 bits throughout (pure)."""
    loss_scale: Annotated[LossScale | None, Knob(affects=("quality",), rows=("TRAIN-06",))] = None
    """How gradients in fp16 are kept from vanishing; unset, dynamic for fp16 and none for other formats."""

    @property
    def usual_scale(self) -> LossScale | None:
        """How the loss is scaled where nothing says otherwise."""
        return DynamicScale() if self.half else None

    @property
    def mixed(self) -> bool:
        """Whether products run in 16 bits while weights are fp32."""
        return self.mode in ("bf16_mixed", "fp16_mixed")

    @property
    def pure(self) -> bool:
        """Whether weights, gradients and optimizer are 16 bits wide."""
        return self.mode in ("bf16_pure", "fp16_pure")

    @property
    def half(self) -> bool:
        """Whether gradients pass through fp16, whose range is narrow."""
        return self.mode in ("fp16_mixed", "fp16_pure")
