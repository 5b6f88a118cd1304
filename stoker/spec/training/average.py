"""Which average of the weights is judged and kept in their place. Built by `worker.trainer.training.average`."""

from typing import Annotated

from stoker.spec.base import Count, Decay, Duration, Knob, Positive, Spec


class EMA(Spec):
    """An exponential moving average of the weights (Polyak and Juditsky 1992); the model is judged and kept as the average."""

    decay: Annotated[Decay, Knob("share", ("quality",))] = 0.999
    """Share of the average that each update keeps; the rest comes from the weights."""
    start: Annotated[Duration | None, Knob(affects=("quality",))] = None
    """Length of training after which the average begins, with the weights as they are then; unset, the first step."""
    every: Annotated[Count, Knob("optimizer steps", ("speed", "quality"))] = 1
    """Steps between two updates of the average."""
    warmup: Annotated[bool, Knob(affects=("quality",))] = False
    """Begin with a short memory: update n keeps at most (1 + n) / (10 + n) of the average."""


class SWA(Spec):
    """The plain mean of weights along the run (Izmailov et al. 2018); BatchNorm statistics are computed anew for it."""

    start: Annotated[Duration, Knob(affects=("quality",))]
    """Length of training after which the first weights are taken into the mean."""
    every: Annotated[Duration, Knob(affects=("speed", "quality"))] = Duration(epochs=1)
    """Length of training between two weights that are taken."""
    lr: Annotated[Positive | None, Knob("learning rate", ("quality",))] = None
    """Constant learning rate from the start of averaging on; unset, the schedule goes on."""
