"""The multi-layer perceptron on paper, as `worker.trainer.model.mlp` builds it."""

from itertools import count

from stoker.plan.parts import normalized
from stoker.plan.tape import Tape, Value
from stoker.spec.model.mlp import MLP


def play_mlp(tape: Tape, spec: MLP, value: Value, outputs: int) -> Value:
    """Logits of one micro-batch; pictures are flattened first."""
    index = count(0 if len(value.shape) == 1 else 1)
    value = value.viewed(value.size)
    for layer, width in enumerate(spec.hidden_sizes):
        part = f"hidden {layer}"
        value = tape.linear(value, width, part, str(next(index)), bias=spec.bias)
        if spec.normalization is not None:
            value = normalized(tape, value, spec.normalization, width, part, str(next(index)))
        value = tape.activation(value, spec.activation)
        next(index)
        if spec.dropout > 0:
            value = tape.dropout(value, spec.dropout)
            next(index)
    return tape.linear(value, outputs, "head", str(next(index)), bias=spec.bias)
