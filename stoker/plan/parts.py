"""Pieces that several architectures share, on paper."""

from typing import assert_never

from stoker.plan.tape import FP32, Tape, Value
from stoker.spec.model.parts import BatchNorm, LayerNorm, Normalization, RMSNorm


def normalized(tape: Tape, value: Value, norm: Normalization, width: int, part: str, name: str) -> Value:
    """A normalisation of `width` features."""
    tensors: tuple[str, ...]
    match norm:
        case BatchNorm(affine=affine, track_running_stats=tracked):
            tensors = ("weight", "bias") if affine else ()
            if tracked:
                tape.statistics(part, name, width)
        case LayerNorm(bias=bias):
            tensors = ("weight", "bias") if bias else ("weight",)
        case RMSNorm():
            tensors = ("weight",)
        case _:
            assert_never(norm)
    for tensor in tensors:
        tape.learn(part, f"{name}.{tensor}", (width,), FP32 if isinstance(norm, BatchNorm) else None)
    held = not isinstance(norm, BatchNorm) or norm.affine or norm.track_running_stats
    return tape.norm(value, norm.type, width, learned=held)
