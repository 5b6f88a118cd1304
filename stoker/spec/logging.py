"""What the run reports while it trains. Honoured by `worker.trainer.logging`."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from stoker.spec.base import Duration, Knob, Positive, Spec


class JsonLines(Spec):
    """Metrics as lines of JSON: artifacts metrics/from-step-<step>.jsonl, one per attempt."""

    type: Literal["jsonl"] = "jsonl"
    """Which sink this is."""


class TensorBoard(Spec):
    """Metrics as TensorBoard reads them: artifacts tensorboard/events.out.tfevents.from-step-<step>, one per attempt."""

    type: Literal["tensorboard"] = "tensorboard"
    """Which sink this is."""


def _spelled_out(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


AnySink = Annotated[JsonLines | TensorBoard, Field(discriminator="type")]
SinkName = Literal["jsonl", "tensorboard"]
Sink = Annotated[AnySink, BeforeValidator(_spelled_out, json_schema_input_type=AnySink | SinkName)]
"""A sink by name, or as a mapping with its type."""


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
    sinks: Annotated[Annotated[tuple[Sink, ...], Field(max_length=10)], Knob(rows=("LOG-01",))] = ()
    """Where metrics are written beside the database, as artifacts that grow with each checkpoint."""
    hyperparameters: Annotated[bool, Knob(rows=("LOG-02",))] = False
    """Keep the resolved spec with its digest as hyperparameters.json, and write its values into the sinks."""
