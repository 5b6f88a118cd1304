"""What a run begins with, and which of it learns. Honoured by `worker.trainer.initialization`; the server finds the files.

To go on from a checkpoint with its step and optimizer is `checkpoint.resume_from`.
"""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import DatasetRef, Knob, Spec
from stoker.spec.checkpoint_ref import CheckpointRef
from stoker.spec.initialization.finetune import Finetune
from stoker.spec.model.init import Scheme
from stoker.spec.optimizer.param_groups import Pattern


class Cold(Spec):
    """Start from weights drawn by `model.init`; no file is read."""

    type: Literal["cold"] = "cold"
    """How the run starts."""


class Given(Spec):
    """What every start from given weights has: which of them are taken, and what if they are not all there."""

    strict: Annotated[bool, Knob(affects=("quality",), rows=("INIT-06", "INIT-07"))] = True
    """Refuse weights that the model lacks or that lack in the file, but those left out on purpose; false reports them and goes on."""
    exclude_keys: Annotated[
        Annotated[tuple[Pattern, ...], Field(max_length=1000)], Knob("patterns", ("quality",), ("INIT-10",))
    ] = ()
    """Weights left as the model drew them, by patterns of their names."""
    reset_head: Annotated[bool, Knob(affects=("quality",), rows=("INIT-10",))] = False
    """Leave the model's last layer as it was drawn, for another number of classes than the source had."""


class Warm(Given):
    """Start from the weights of a job's checkpoint; the step is 0 and the optimizer fresh."""

    type: Literal["warm"] = "warm"
    """How the run starts."""
    checkpoint: Annotated[CheckpointRef, Knob(rows=("INIT-06",))]
    """The checkpoint; of its weights the average where one was judged in their place, with adapters merged."""


class Pretrained(Given):
    """Start from weights that other programs made: a data set of safetensors files."""

    type: Literal["pretrained"] = "pretrained"
    """How the run starts."""
    source: Annotated[DatasetRef, Knob("data set", (), ("INIT-07",))]
    """Data set with the *.safetensors files, by name or `name@version`; without a version the newest at submit."""
    names: Annotated[Literal["stoker", "huggingface"], Knob(rows=("INIT-07",))] = "stoker"
    """Whose names the weights have: this model's own, or those of Hugging Face's transformers for its architecture."""
    sha256: Annotated[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None, Knob(rows=("INIT-07",))] = None
    """SHA-256 that the one weights file must have, in hexadecimal; unset, that which the data set had when it was uploaded."""


Start = Annotated[Cold | Warm | Pretrained, Field(discriminator="type")]


class Override(Spec):
    """Modules that start in another way than `model.init` says."""

    pattern: Annotated[Pattern, Knob(affects=("quality",), rows=("INIT-01",))]
    """Which modules by their names in the model, with `*` and `?`, `blocks.*.ffn.*`; of several that match the last counts."""
    init: Annotated[Scheme, Knob(affects=("quality",), rows=("INIT-01",))]
    """How their weights are drawn; their biases are zero, but with torch_default."""


class Initialization(Spec):
    start: Annotated[Start, Knob(affects=("quality",), rows=("INIT-05", "INIT-06", "INIT-07"))] = Cold()
    """Where the weights come from."""
    overrides: Annotated[
        Annotated[tuple[Override, ...], Field(max_length=1000)], Knob("modules", ("quality",), ("INIT-01",))
    ] = ()
    """Modules that are drawn in another way than `model.init` says, before any given weights are put in their place."""
    finetune: Annotated[Finetune | None, Knob(affects=("memory", "quality"), rows=("INIT-09",))] = None
    """Which weights learn and how fast; null for all alike."""
