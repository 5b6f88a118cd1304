"""Which samples are kept from training. Built by `worker.trainer.data.split`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Knob, Spec

Share = Annotated[float, Field(ge=0, le=0.9)]


class Split(Spec):
    """Shares of the data set; what is left trains."""

    strategy: Annotated[
        Literal["random", "stratified", "contiguous"] | None, Knob(affects=("quality",), rows=("DATA-03", "DATA-04"))
    ] = None
    """random, stratified by class, or contiguous (train, validation, test in file order); unset: stratified for
    classification, random for regression, contiguous for text."""
    validation: Annotated[Share, Knob("share of samples", ("quality",), ("DATA-01",))] = 0.1
    """Share held out to steer the run."""
    test: Annotated[Share, Knob("share of samples", ("quality",), ("DATA-02",))] = 0.0
    """Share held out to judge the finished model, never used before."""
