"""A spec's model, played on paper."""

from typing import assert_never

from stoker.plan.decoder import play_decoder
from stoker.plan.known import Known
from stoker.plan.layers import play_layers
from stoker.plan.mlp import play_mlp
from stoker.plan.tape import Tape
from stoker.spec import JobSpec
from stoker.spec.loss import MeanSquaredError
from stoker.spec.model import MLP, Layers, TransformerDecoder
from stoker.spec.task import Regression


def draw(spec: JobSpec, known: Known, batch: int) -> Tape:
    """One training pass of `batch` samples on one rank."""
    tape = Tape(batch, gpu=spec.resources.device == "cuda", mixed=spec.precision.mode == "bf16_mixed")
    samples = tape.start(known.shape)
    match spec.model:
        case MLP():
            out = play_mlp(tape, spec.model, samples, known.outputs)
        case Layers():
            out = play_layers(tape, spec.model, samples)
        case TransformerDecoder():
            out = play_decoder(tape, spec.model, known.shape[0], known.outputs)
        case _:
            assert_never(spec.model)
    regresses = isinstance(spec.loss, MeanSquaredError) or (spec.loss is None and isinstance(spec.task, Regression))
    tape.loss(out, "mse" if regresses else "cross_entropy")
    return tape
