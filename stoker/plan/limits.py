"""What no machine will ever hold is refused before anything is made."""

from dataclasses import dataclass

from stoker.errors import Finding, SpecError
from stoker.plan.prediction import MemoryView
from stoker.plan.tape import Tape, Weight
from stoker.spec import JobSpec
from stoker.spec.model import CNN, GAN, GRU, HF, LSTM, MLP, RNN, Layers, TransformerDecoder, TransformerEncoder


@dataclass(frozen=True)
class Limits:
    parameters: int = 2 * 10**12
    memory_bytes: int = 64 << 40
    """For all ranks together."""


LIMITS = Limits()
PARTS = ("weights_bytes", "gradients_bytes", "optimizer_bytes", "activations_bytes", "workspace_bytes", "dataset_bytes")
"""What may be the largest part of a run too large."""


def refuse_parameters(spec: JobSpec, tape: Tape, limits: Limits) -> None:
    """Raises SpecError `estimate_exceeds_limit` when the model has more parameters than the limit."""
    total = tape.parameters
    if total > limits.parameters:
        pointer, fields = _blame(spec, tape)
        _refuse(pointer, f"the model would have {total:,} parameters ({fields}); the limit is {limits.parameters:,}")


def refuse_memory(spec: JobSpec, tape: Tape, memory: MemoryView, limits: Limits) -> None:
    """Raises SpecError `estimate_exceeds_limit` when all ranks together need more memory than the limit."""
    if memory.total_bytes <= limits.memory_bytes:
        return
    parts = {name: getattr(memory, name) for name in PARTS}
    largest = max(parts, key=lambda name: parts[name])
    pointer, fields = _blame(spec, tape)
    if largest in ("activations_bytes", "workspace_bytes"):
        pointer, fields = "/training/micro_batch_size", f"training.micro_batch_size = {tape.batch}, {fields}"
    _refuse(
        pointer,
        f"the run would need {memory.total_bytes:,} bytes of memory, most of it {largest.removesuffix('_bytes')} ({fields}); "
        f"the limit is {limits.memory_bytes:,} bytes",
    )


def _refuse(pointer: str, message: str) -> None:
    hint = "make the model, the window or the micro-batch smaller"
    raise SpecError([Finding(pointer=pointer, code="estimate_exceeds_limit", message=message, hint=hint)])


def _blame(spec: JobSpec, tape: Tape) -> tuple[str, str]:
    """The fields that make the model large: a pointer to the first and all of them with their values."""
    match spec.model:
        case TransformerDecoder() | TransformerEncoder() as model:
            sizes = {"num_layers": model.num_layers, "hidden_size": model.hidden_size, "ffn_size": model.ffn_size}
            sizes |= {"num_heads": model.num_heads, "key_dim": model.key_dim}
            named = ", ".join(f"model.{name} = {value}" for name, value in sizes.items() if value is not None)
            return "/model/num_layers", named
        case RNN() | LSTM() | GRU() as model:
            named = f"model.num_layers = {model.num_layers}, model.hidden_size = {model.hidden_size}"
            return "/model/hidden_size", named
        case MLP() as model:
            widest = max(range(len(model.hidden_sizes)), key=lambda i: model.hidden_sizes[i], default=0)
            return f"/model/hidden_sizes/{widest}", f"model.hidden_sizes, widest {max(model.hidden_sizes, default=0)}"
        case CNN(stages=stages):
            return "/model/stages", f"model.stages, widest {max(stage.channels for stage in stages)}"
        case HF():
            return "/model/source", "model.source"
        case GAN():
            heaviest = max(tape.weights, key=lambda w: w.size, default=Weight("", (), "generator"))
            network = heaviest.name.partition(".")[0]
            return f"/model/{network}", f"model.{network} has {heaviest.size:,} weights in one tensor"
        case Layers():
            heaviest = max(tape.weights, key=lambda w: w.size, default=Weight("", (), "layers"))
            return (
                f"/model/{heaviest.part.replace('.', '/')}",
                f"model.{heaviest.part} has {heaviest.size:,} weights in one tensor",
            )
