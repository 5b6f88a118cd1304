"""How samples become batches. Built by `worker.trainer.data.loader`."""

from typing import Annotated

from stoker.spec.base import Knob, Spec


class Loader(Spec):
    shuffle: Annotated[bool, Knob(affects=("quality",), rows=("DATA-09",))] = True
    """Draw a new order of training samples each epoch, from the data seed and the epoch alone."""
    drop_last: Annotated[bool, Knob(affects=("quality",), rows=("TRAIN-02",))] = False
    """Skip the samples that do not fill the last batch of an epoch instead of making it smaller."""
    pin_memory: Annotated[bool, Knob(affects=("speed", "memory"), rows=("LOAD-09",))] = False
    """Keep the data in page-locked memory for faster copies to a GPU; GPU only."""
