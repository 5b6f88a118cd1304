"""How long and in what portions it trains. Honoured by `worker.trainer.training`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Count, Knob, MetricKey, NonNegative, Positive, Spec
from stoker.spec.training.adversarial import Adversarial
from stoker.spec.training.average import EMA, SWA
from stoker.spec.training.distillation import Distillation
from stoker.spec.training.dynamic_batch import DynamicBatch
from stoker.spec.training.truncation import TBPTT


class ClipByNorm(Spec):
    """Scale all gradients down together (Pascanu et al. 2013)."""

    type: Literal["norm"] = "norm"
    """Which clipping this is."""
    max_norm: Annotated[Positive, Knob(affects=("quality",), rows=("REG-07",))] = 1.0
    """Largest norm of all gradients that passes unchanged."""
    norm_type: Annotated[Annotated[float, Field(ge=1, le=100)], Knob(affects=("quality",), rows=("REG-07",))] = 2.0
    """Order p of the norm."""


class ClipByValue(Spec):
    """Clamp each gradient element."""

    type: Literal["value"] = "value"
    """Which clipping this is."""
    value: Annotated[Positive, Knob(affects=("quality",), rows=("REG-08",))] = 1.0
    """Largest absolute value that passes unchanged."""


Clipping = Annotated[ClipByNorm | ClipByValue, Field(discriminator="type")]


class EarlyStopping(Spec):
    """Stop when an evaluated metric no longer improves."""

    monitor: Annotated[MetricKey, Knob(rows=("REG-06",))] = "validation/loss"
    """Metric that must improve."""
    mode: Annotated[Literal["min", "max"] | None, Knob(rows=("REG-06",))] = None
    """Whether smaller or larger is better; unset, what the metric says."""
    patience: Annotated[Count, Knob("evaluations", ("speed", "quality"), ("REG-06",))] = 5
    """Evaluations without improvement before the run stops."""
    min_delta: Annotated[NonNegative, Knob(affects=("quality",), rows=("REG-06",))] = 0.0
    """Smallest change that counts as improvement."""
    restore_best: Annotated[bool, Knob(affects=("quality",), rows=("REG-06",))] = True
    """End with the weights of the best evaluation instead of the last."""


LENGTHS = ("epochs", "max_steps", "max_tokens", "max_seconds")
"""Keys that say how long a run is; a document sets exactly one, and a document laid over another replaces it."""


class Training(Spec):
    """Exactly one of epochs, max_steps, max_tokens and max_seconds ends the run."""

    epochs: Annotated[Count | None, Knob("epochs", ("speed", "quality"), ("TRAIN-02",))] = None
    """Passes over the training split."""
    max_steps: Annotated[Count | None, Knob("optimizer steps", ("speed", "quality"), ("TRAIN-02",))] = None
    """Optimizer steps."""
    max_tokens: Annotated[Annotated[int, Field(ge=1, le=2**62)] | None, Knob("tokens", ("speed", "quality"), ("TRAIN-02",))] = (
        None
    )
    """Tokens seen by the model, for text, padding of short texts included; the step that reaches it is the last."""
    max_seconds: Annotated[Positive | None, Knob("seconds", ("speed", "quality"), ("TRAIN-02",))] = None
    """Seconds of training over all attempts; the step that passes it is the last."""
    batch_size: Annotated[Count, Knob("samples", ("memory", "speed", "quality"), ("TRAIN-01",))] = 32
    """Samples per optimizer step, over all ranks and micro-batches."""
    micro_batch_size: Annotated[Count | None, Knob("samples", ("memory", "speed"), ("TRAIN-01",))] = None
    """Samples per forward pass of one rank; unset, what accumulation leaves."""
    gradient_accumulation_steps: Annotated[Count | None, Knob("micro-batches", ("memory", "speed"), ("TRAIN-03",))] = None
    """Forward passes per optimizer step; unset, batch_size / (micro_batch_size x ranks)."""
    dynamic_batch: Annotated[DynamicBatch | None, Knob(affects=("memory", "speed", "quality"), rows=("TRAIN-10",))] = None
    """How batches change while the run goes on; null for not at all."""
    gradient_clipping: Annotated[Clipping | None, Knob(affects=("quality",), rows=("REG-07", "REG-08"))] = None
    """Bound on gradients, after accumulation; null for none."""
    early_stopping: Annotated[EarlyStopping | None, Knob(affects=("speed", "quality"), rows=("REG-06",))] = None
    """Stop before the end when validation stalls; null for never."""
    tbptt: Annotated[TBPTT | None, Knob(affects=("memory", "speed", "quality"), rows=("TRAIN-08",))] = None
    """Learn long sequences in windows of time, for recurrent models; null for whole sequences."""
    distillation: Annotated[Distillation | None, Knob(affects=("quality", "speed", "memory"), rows=("TRAIN-12",))] = None
    """Learn from a model that another job has trained; null for the targets alone."""
    adversarial: Annotated[Adversarial | None, Knob(affects=("speed", "quality"), rows=("TRAIN-11",))] = None
    """Learn from samples that are turned against the model; null for samples as they are."""
    ema: Annotated[EMA | None, Knob(affects=("memory", "quality"))] = None
    """Judge and keep an exponential moving average of the weights; null for the weights themselves."""
    swa: Annotated[SWA | None, Knob(affects=("memory", "quality"))] = None
    """Judge and keep the mean of weights along the run; null for the weights themselves."""
