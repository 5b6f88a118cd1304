"""What of the inside of a run is shown while it trains. Built by `worker.trainer.debug.inspection`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Count, Duration, Knob, Spec

EVERY = Duration(steps=100)
ModulePath = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$", max_length=80)]


class Histograms(Spec):
    """How the values of each weight are distributed."""

    interval: Annotated[Duration, Knob(affects=("speed",), rows=("DBG-01",))] = EVERY
    """How often they are made; each time leaves an artifact histograms/step-<step>.json."""
    weights: Annotated[bool, Knob(rows=("DBG-01",))] = True
    """Of the weights."""
    gradients: Annotated[bool, Knob(rows=("DBG-01",))] = True
    """Of the gradients, as the optimizer got them: accumulated, and after clipping."""
    bins: Annotated[Annotated[int, Field(ge=1, le=10_000)], Knob("bins", rows=("DBG-01",))] = 64
    """Bins of equal width between the smallest and the largest value."""


class GradientNorms(Spec):
    """How strongly each layer is pulled."""

    interval: Annotated[Duration, Knob(affects=("speed",), rows=("DBG-01",))] = EVERY
    """How often the norm of each layer's gradients is reported as gradient/<layer>, after accumulation and clipping."""


class Probe(Spec):
    """One place inside the model, looked at with the first training samples, in evaluation mode: no noise, the same each time."""

    module: Annotated[ModulePath, Knob(rows=("DBG-02",))]
    """Path of a module as the model summary lists it, `blocks.0.attention`."""
    what: Annotated[Literal["output", "input", "gradient"], Knob(rows=("DBG-02",))] = "output"
    """Its output, its first input, or the gradient of the mean loss with respect to its output."""
    interval: Annotated[Duration, Knob(affects=("speed",), rows=("DBG-02",))] = EVERY
    """How often it is looked at; mean, std, min and max are reported as probe/<module>.<what>.<statistic>."""
    samples: Annotated[Annotated[int, Field(ge=1, le=4096)], Knob("samples", ("speed",), ("DBG-02",))] = 8
    """Training samples it is shown, the first of the split."""
    tensors: Annotated[bool, Knob(rows=("DBG-02",))] = False
    """Keep the whole tensor too, as artifact probes/<module>.<what>/step-<step>.safetensors."""


class Profiler(Spec):
    """Record what runs when, for a few steps."""

    start_step: Annotated[Count, Knob("optimizer steps", rows=("DBG-01",))] = 10
    """Steps made before it starts; a run that resumes beyond it records nothing."""
    active_steps: Annotated[Annotated[int, Field(ge=1, le=1000)], Knob("optimizer steps", ("speed",), ("DBG-01",))] = 3
    """Steps it records."""
    memory: Annotated[bool, Knob(affects=("speed",), rows=("DBG-01",))] = False
    """Record allocations too."""
    with_stack: Annotated[bool, Knob(affects=("speed",), rows=("DBG-01",))] = False
    """Record the source lines that led to each operation."""
