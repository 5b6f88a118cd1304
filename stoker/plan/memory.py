"""Largest memory of one rank, by part."""

import math

from stoker.errors import SpecError
from stoker.plan.checkpoint import average_bytes, buffers_bytes, carried_bytes, keeps_best, optimizer_bytes
from stoker.plan.draw import draw
from stoker.plan.known import Known
from stoker.plan.prediction import MemoryView
from stoker.plan.spread import activation_bytes, apart_bytes, backward_bytes, communication_bytes, gradient_shards, shards
from stoker.plan.tape import FP32, INT64, Tape
from stoker.spec import JobSpec
from stoker.spec.derived.arithmetic import Batch
from stoker.spec.distributed import FSDP, Distributed
from stoker.spec.training.dynamic_batch import BatchSchedule, OnPlateau

MIB = 1 << 20
RUNTIME_BYTES = 385 * MIB
"""Resident memory of one rank before it has data or a model: interpreter, PyTorch and what else the trainer imports."""
GPU_RUNTIME_BYTES = 640 * MIB
"""A CUDA context with its kernels and library handles, on the device."""
GATHERED_BYTES = 2 * MIB
"""Inputs that the loader gathers at once, or one batch where that is more."""
TOKEN_BYTES, LOADING_BYTES_PER_TOKEN = 4, 28
"""Of a token at rest, and while text is read: text, its pieces and three copies of the ids."""


def teacher_bytes(teacher: JobSpec | None, known: Known) -> int:
    """Weights and statistics of the model that teaches, whole on every rank; it has the samples and outputs of the one that learns."""
    if teacher is None:
        return 0
    try:
        tape = draw(teacher, known, 1)
    except SpecError:  # it was made for samples of another shape, which the run refuses
        return 0
    return tape.weight_bytes + buffers_bytes(tape)


def memory_of(spec: JobSpec, known: Known, tape: Tape, batch: Batch, teacher: int = 0) -> MemoryView:
    """Two peaks: while the data set is read, and at the end of a forward pass; the second differs for a resumed run.

    `teacher`: bytes of the model that teaches.
    """
    whole, held, buffers = tape.weight_bytes, shards(spec.distributed), buffers_bytes(tape)
    weights, optimizer = -(-whole // held), -(-optimizer_bytes(spec, tape) // held)
    passing = (
        tape.gradient_bytes if spec.distributed.world_size == 1 else tape.learned_bytes
    )  # ranks exchange them in buffers that stay
    gradients = -(-passing // gradient_shards(spec.distributed, batch.accumulation))
    activations = activation_bytes(spec, known, tape)
    workspace = max(0, tape.high - tape.activation_bytes)
    best = weights + buffers if keeps_best(spec) else 0
    dataset, loading = _dataset(known, batch, _largest(spec))
    communication = communication_bytes(spec.distributed, weights, tape)
    runtime = RUNTIME_BYTES + (GPU_RUNTIME_BYTES if tape.gpu else 0)
    average = -(-average_bytes(spec, tape) // held)
    standing = runtime + dataset + weights + buffers + best + average + optimizer + carried_bytes(spec, known) + teacher
    # Gradients of one backward pass come as activations go; where they outlive it, both are there at once.
    lasting = batch.accumulation > 1 or _largest(spec) > batch.size or tape.windows > 1 or spec.distributed.world_size > 1
    several = backward_bytes(spec.distributed, batch.accumulation, gradients, activations)
    backward = several if lasting else max(gradients, activations + tape.largest_weight)
    training = backward + workspace + communication
    saving = weights + apart_bytes(spec.distributed, weights, optimizer)
    building = (
        runtime + dataset + teacher + whole + weights + buffers
    )  # each rank begins with the whole model, of which it keeps its part
    fresh = max(standing + max(training, saving), runtime + teacher + dataset + loading, building if held > 1 else 0)
    # A checkpoint is read into the tensors that are there, one at a time, before the first gradient is.
    resumed = max(fresh, standing + tape.largest_weight)
    return MemoryView(
        weights_bytes=weights,
        gradients_bytes=gradients,
        optimizer_bytes=optimizer,
        activations_bytes=activations,
        workspace_bytes=workspace,
        buffers_bytes=buffers,
        best_bytes=best,
        average_bytes=average,
        teacher_bytes=teacher,
        dataset_bytes=dataset,
        loading_bytes=loading,
        communication_bytes=communication,
        runtime_bytes=runtime,
        fresh_bytes=fresh,
        resumed_bytes=resumed,
        saving_bytes=0 if spec.checkpoint.background == "off" else weights + buffers + best + average + optimizer,
        rank_bytes=resumed,
        device_bytes=_on_gpu(spec.distributed, whole, buffers + teacher, activations + workspace + communication),
        total_bytes=resumed * spec.distributed.world_size,
    )


def _on_gpu(how: Distributed, whole: int, buffers: int, passing: int) -> int | None:
    """Where the host lends memory: each rank begins with the whole model on its GPU; then there is what a pass makes and gathers."""
    if not isinstance(how, FSDP) or how.offload == "none":
        return None
    return GPU_RUNTIME_BYTES + buffers + max(whole, passing)


def _largest(spec: JobSpec) -> int:
    """Samples of the largest step; micro-batches keep their size, so that only what is gathered at once grows."""
    match spec.training.dynamic_batch:
        case BatchSchedule(milestones=milestones):
            return max(spec.training.batch_size, *(milestone.batch_size for milestone in milestones))
        case OnPlateau(max=most):
            return max(spec.training.batch_size, most)
        case _:
            return spec.training.batch_size


def _dataset(known: Known, batch: Batch, largest: int) -> tuple[int, int]:
    """At rest, with the block that is being fed; and what more there is while it is read and split."""
    per_rank = -(-largest // batch.ranks)
    if known.text:
        gathered = max(GATHERED_BYTES // TOKEN_BYTES, per_rank * known.shape[0]) * (TOKEN_BYTES + 2 * INT64)
        return known.items * TOKEN_BYTES + gathered, known.items * LOADING_BYTES_PER_TOKEN
    sample = math.prod(known.shape) * FP32 + INT64
    return known.items * sample + max(GATHERED_BYTES, per_rank * sample), 2 * known.items * sample
