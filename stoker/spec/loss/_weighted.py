"""What all losses have in common: samples that weigh more than others."""

from typing import Annotated, Literal

from stoker.spec.base import Knob, Spec


class SampleWeighted(Spec):
    """A loss whose samples may have weights, from data.sample_weight_column."""

    sample_weight_normalization: Annotated[
        Literal["weights", "samples"] | None, Knob(affects=("quality",), rows=("LOSS-10",))
    ] = None
    """What the weighted sum is divided by: the sum of the weights, or the number of samples; unset, weights where there are any."""
