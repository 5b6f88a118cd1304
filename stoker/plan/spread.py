"""What spreading a run over ranks costs each of them in memory, beside model and data."""

from typing import assert_never

from stoker.plan.draw import draw
from stoker.plan.known import Known
from stoker.plan.tape import BF16, FP32, Tape
from stoker.spec import JobSpec
from stoker.spec.distributed import (
    DDP,
    FSDP,
    Auto,
    Distributed,
    Horovod,
    LocalSGD,
    ParameterServer,
    PipelineParallel,
    Single,
    TensorParallel,
)
from stoker.spec.model import TransformerDecoder

MIB = 1 << 20
LOCAL_BUCKET_BYTES = 32 * MIB
"""Portions in which ranks that learn apart exchange their weights."""


def shards(spec: Distributed) -> int:
    """Ranks that hold one copy of the weights, and what belongs to them, together."""
    match spec:
        case FSDP(replicate=replicas):
            return max(1, spec.data_parts * spec.context_degree // replicas) * spec.tensor_degree
        case DDP():
            return spec.tensor_degree * spec.pipeline_degree
        case Auto() | Single() | Horovod() | LocalSGD() | ParameterServer():
            return 1
        case _:
            assert_never(spec)


def ranks_saved(spec: Distributed) -> int:
    """Ranks whose random states a checkpoint keeps."""
    return spec.workers if isinstance(spec, ParameterServer) else spec.world_size


def gradient_shards(spec: Distributed, accumulation: int) -> int:
    """Ranks that hold one copy of the gradients together: those that add up over several passes are shared out after the last."""
    return spec.tensor_degree if isinstance(spec, FSDP) and accumulation > 1 else shards(spec)


def largest_unit(tape: Tape) -> int:
    """Bytes of the most weights that are gathered at once: one block, or all that is in no block; else one layer."""
    units: dict[str, int] = {}
    stacked = any("{}" in weight.name for weight in tape.weights)
    for weight in tape.weights:
        unit = "block" if "{}" in weight.name else "" if stacked else weight.name.partition(".")[0]
        units[unit] = units.get(unit, 0) + weight.size * weight.item // weight.copies
    return max(units.values(), default=0)


def communication_bytes(spec: Distributed, weights: int, tape: Tape) -> int:
    """Buffers for what ranks tell one another in a step."""
    match spec:
        case Auto() | Single():
            return 0
        case DDP():
            return min(spec.bucket_cap_mb * MIB, weights)
        case Horovod():
            return weights  # all gradients, as messages
        case LocalSGD():
            return min(LOCAL_BUCKET_BYTES, weights)
        case ParameterServer():
            return 2 * weights  # gradients on their way out, weights on their way in
        case FSDP(reshard_after_forward=resharded):
            # Measured on CPU: of the block in use the weights and their gradients, the message of the gradients before, and
            # that of the weights to come; blocks that stay gathered need no message.
            unit = largest_unit(tape)
            return 4 * unit if resharded else shards(spec) * weights + 3 * unit
        case _:
            assert_never(spec)


def backward_bytes(spec: Distributed, accumulation: int, gradients: int, activations: int) -> int:
    """Most of gradients and activations that is there at once in a backward pass whose gradients outlive it.

    Those of shards come block by block as activations go, but where they are whole from the pass before.
    """
    if isinstance(spec, FSDP) and accumulation == 1:
        return max(gradients, activations)
    return gradients + activations


def activation_bytes(spec: JobSpec, known: Known, tape: Tape) -> int:
    """What one rank keeps of a forward pass. Of sequences in parts it keeps its own, and the keys and values of all tokens."""
    match spec.distributed, spec.model:
        case ((DDP(context_degree=degree) | FSDP(context_degree=degree)), TransformerDecoder() as model) if degree > 1:
            length, item = known.shape[0], BF16 if tape.mixed or tape.pure else FP32
            width = model.key_dim or model.hidden_size // model.num_heads
            pairs = 2 * (model.num_kv_heads or model.num_heads) * width * length * item * model.num_layers * tape.batch
            mask = (2 * degree + 1) * (length // (2 * degree)) ** 2 * item
            return tape.activation_bytes // degree + pairs - pairs // degree + mask
        case DDP(pipeline_parallel=PipelineParallel() as pipeline), _:
            # Pieces under way: all of them, or as many as there are stages before the first one turns back.
            held = pipeline.microbatches if pipeline.schedule == "gpipe" else min(pipeline.stages, pipeline.microbatches)
            return tape.activation_bytes * held // (pipeline.degree * pipeline.microbatches)
        case (
            DDP(tensor_parallel=TensorParallel() as cut) | FSDP(tensor_parallel=TensorParallel() as cut),
            TransformerDecoder() as model,
        ):
            return _of_cut_layers(spec, known, tape, cut, model)
        case _:
            return tape.activation_bytes


def _of_cut_layers(spec: JobSpec, known: Known, tape: Tape, cut: TensorParallel, model: TransformerDecoder) -> int:
    """A rank's layers are those of a model with fewer heads and narrower feed-forward layers; the stream between them is whole,
    or what the norms keep of it is this rank's part.
    """
    smaller = {
        "num_heads": model.num_heads // cut.degree,
        "num_kv_heads": model.num_kv_heads and model.num_kv_heads // cut.degree,
        "key_dim": model.key_dim or model.hidden_size // model.num_heads,
        "ffn_size": (model.ffn_size or 4 * model.hidden_size) // cut.degree,
    }
    own = draw(spec.model_copy(update={"model": model.model_copy(update=smaller)}), known, tape.batch).activation_bytes
    if not cut.sequence_parallel:
        return own
    stream = (2 * model.num_layers + 1) * known.shape[0] * model.hidden_size * tape.batch * tape.word
    return own - stream + stream // cut.degree


def apart_bytes(spec: Distributed, weights: int, optimizer: int) -> int:
    """On rank 0 while ranks that learn apart are saved: its own weights beside the mean, and everybody's, with their moments."""
    match spec:
        case LocalSGD(sync_every=every, average_optimizer_state=shared):
            differ, moments = every > 1, every > 1 or not shared
            return (weights if differ else 0) + spec.world_size * (differ * weights + moments * optimizer)
        case _:
            return 0
