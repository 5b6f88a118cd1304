"""What the run reports while it trains. Honoured by `worker.trainer.logging`."""

from typing import Annotated

from stoker.spec._base import Duration, Knob, Spec


class Logging(Spec):
    interval: Annotated[Duration, Knob(affects=("speed",), rows=("LOG-01",))] = Duration(steps=10)
    """How often training metrics are written."""
    gradient_norm: Annotated[bool, Knob(affects=("speed",), rows=("DBG-01",))] = True
    """Report the norm of all gradients, before clipping, as train/gradient_norm."""
    performance: Annotated[bool, Knob(rows=("LOG-04",))] = True
    """Report samples or tokens per second and the seconds per step."""
