"""Parts of a model that are one. Done by `worker.trainer.model.sharing`."""

from typing import Annotated

from pydantic import Field

from stoker.spec.base import Knob, Spec

Part = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$", max_length=256)]


class Share(Spec):
    """Two parts of equal shapes with the same weights: counted, moved and saved once, their gradients added up."""

    source: Annotated[Part, Knob(affects=("memory", "quality"), rows=("ARCH-25",))]
    """The module or weight that is used twice, by the name it has in a checkpoint, for example `0` or `blocks.0`."""
    target: Annotated[Part, Knob(affects=("memory", "quality"), rows=("ARCH-25",))]
    """The module or weight that gives up its own for it; it has tensors of the same names and shapes."""
