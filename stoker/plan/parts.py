"""Pieces that several architectures share, on paper."""

from typing import assert_never

from stoker.plan.tape import Tape, Value
from stoker.spec.model.parts import BatchNorm, LayerNorm, Normalization, RMSNorm


def normalized(tape: Tape, value: Value, norm: Normalization, part: str, name: str) -> Value:
    """A normalisation over the last dimension (the features)."""
    width = value.shape[-1]
    match norm:
        case BatchNorm(affine=affine):
            if affine:
                tape.learn(part, f"{name}.weight", (width,))
                tape.learn(part, f"{name}.bias", (width,))
            tape.batch_statistics(part, name, width)
            return tape.norm(value, "batch", width)
        case LayerNorm(bias=bias):
            tape.learn(part, f"{name}.weight", (width,))
            if bias:
                tape.learn(part, f"{name}.bias", (width,))
            return tape.norm(value, "layer", width)
        case RMSNorm():
            tape.learn(part, f"{name}.weight", (width,))
            return tape.norm(value, "rms", width)
        case _:
            assert_never(norm)
