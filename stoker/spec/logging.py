"""What the run reports while it trains. Honoured by `worker.trainer.logging`."""

from typing import Annotated

from stoker.spec._base import Duration, Knob, Positive, Spec


class Logging(Spec):
    interval: Annotated[Duration, Knob(affects=("speed",), rows=("LOG-01",))] = Duration(steps=10)
    """How often training metrics are written."""
    gradient_norm: Annotated[bool, Knob(affects=("speed",), rows=("DBG-01",))] = True
    """Report the norm of all gradients, before clipping, as train/gradient_norm."""
    performance: Annotated[bool, Knob(rows=("LOG-04",))] = True
    """Report speed, the share of time spent waiting for data, memory, and the FLOPs that the model needs per second."""
    peak_tflops: Annotated[Positive | None, Knob("TFLOP/s", (), ("LOG-04",))] = None
    """What one device can do at most, to report train/mfu; unset, the data sheet of the GPU where it is known."""
    timing: Annotated[bool, Knob(rows=("LOG-03",))] = False
    """Report the seconds of data, passes, evaluation and checkpoints, and keep those of the whole run in timing.json."""
