"""The multi-layer perceptron on paper, as `worker.trainer.model.mlp` builds it."""

from stoker.plan.parts import normalized
from stoker.plan.tape import Tape, Value
from stoker.spec.model.mlp import MLP


def play_mlp(tape: Tape, spec: MLP, value: Value, outputs: int) -> Value:
    """Logits of one micro-batch; pictures are flattened first."""
    value.shape = (value.size,)
    for index, width in enumerate(spec.hidden_sizes):
        name = f"hidden.{index}"
        value = tape.linear(value, width, "hidden", name, bias=spec.bias)
        if spec.normalization is not None:
            value = normalized(tape, value, spec.normalization, "hidden", f"{name}.norm")
        value = tape.dropout(tape.activation(value, spec.activation), spec.dropout)
    return tape.linear(value, outputs, "head", "head", bias=spec.bias)
