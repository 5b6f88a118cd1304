"""Bytes of one checkpoint, as `worker.trainer.checkpoint` writes it."""

from stoker.plan.prediction import CheckpointSizeView
from stoker.plan.tape import FP32, INT64, Tape, Weight
from stoker.spec import JobSpec
from stoker.spec.optimizer import SGD, Adam, AdamW

STATE_BYTES = 8192
"""Random states of a rank, data position, manifest."""


def moments(spec: JobSpec) -> int:
    """Tensors of the size of the weights that the optimizer carries."""
    match spec.optimizer:
        case SGD(momentum=momentum):
            return 1 if momentum > 0 else 0
        case Adam(amsgrad=amsgrad) | AdamW(amsgrad=amsgrad):
            return 3 if amsgrad else 2


def counters(spec: JobSpec) -> int:
    """Step counts that the optimizer carries per tensor, float32 each."""
    return 0 if isinstance(spec.optimizer, SGD) else 1


def checkpoint_of(spec: JobSpec, tape: Tape, ranks: int) -> CheckpointSizeView:
    weights = sum(w.size for w in tape.weights) * FP32
    tensors = sum(w.copies for w in tape.weights)
    model = weights + buffers_bytes(tape) + _header((*tape.weights, *tape.buffers), 1)
    optimizer = weights * moments(spec) + tensors * counters(spec) * FP32
    optimizer += _header(tape.weights, moments(spec) + counters(spec))
    state = STATE_BYTES * ranks
    total = model + optimizer + state
    kept = spec.checkpoint.keep_last + spec.checkpoint.keep_best + 1
    return CheckpointSizeView(
        model_bytes=model,
        optimizer_bytes=optimizer,
        state_bytes=state,
        total_bytes=total,
        kept=kept,
        kept_bytes=kept * total,
    )


def buffers_bytes(tape: Tape) -> int:
    """Running statistics are float32, their counts (scalars) int64."""
    return sum(b.size * (FP32 if b.shape else INT64) for b in tape.buffers)


def _header(weights: tuple[Weight, ...] | list[Weight], per_weight: int) -> int:
    """Bytes of a safetensors header: name, format, shape and two offsets of each tensor."""
    return 8 + sum(w.copies * (len(w.name) + 70) for w in weights) * per_weight
