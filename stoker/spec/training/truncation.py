"""How far back in time a recurrent model learns. Built by `worker.trainer.training.truncation`."""

from typing import Annotated

from stoker.spec.base import Knob, Size, Spec


class TBPTT(Spec):
    """Truncated backpropagation through time (Williams and Peng 1990): each window of a sequence has a backward pass of its own.

    What is minimised stays the mean over the whole batch; the gradients of all windows make one optimizer step.
    """

    steps: Annotated[Size, Knob("time steps", ("memory", "speed", "quality"), ("TRAIN-08",))]
    """How many time steps gradients go back; at most the length of a sample."""
    stride: Annotated[Size | None, Knob("time steps", ("speed", "quality"), ("TRAIN-08",))] = None
    """Time steps from one window to the next, a divisor of steps; unset, steps. Where windows overlap, each error is counted once."""
    stateful: Annotated[bool, Knob(affects=("quality",), rows=("TRAIN-08",))] = False
    """Begin a sample with the memory that the one before it in its stream left, within an epoch; each place of the batch is a
    stream of consecutive samples. Evaluation begins every sample without memory."""
