"""Largest memory of one rank, by part."""

import math

from stoker.plan.checkpoint import buffers_bytes, counters, moments
from stoker.plan.known import Known
from stoker.plan.prediction import MemoryView
from stoker.plan.tape import FP32, INT64, Tape
from stoker.spec import JobSpec
from stoker.spec.arithmetic import Batch

RUNTIME_BYTES = 320 << 20
"""Resident memory of one rank before it has a model: interpreter, PyTorch and the libraries of the trainer, measured."""
GPU_RUNTIME_BYTES = 640 << 20
"""A CUDA context with its kernels, on the device."""


def memory_of(spec: JobSpec, known: Known, tape: Tape, batch: Batch) -> MemoryView:
    weights = tape.parameters * FP32
    tensors = sum(w.copies for w in tape.weights)
    optimizer = weights * moments(spec) + tensors * counters(spec) * FP32
    activations, workspace = tape.activation_bytes, 2 * tape.largest
    buffers, dataset = buffers_bytes(tape), _dataset(known)
    communication = weights if batch.ranks > 1 else 0
    runtime = RUNTIME_BYTES + (GPU_RUNTIME_BYTES if tape.gpu else 0)
    standing = weights + buffers + dataset + communication + runtime
    fresh = standing + weights + optimizer + activations + workspace
    resumed = standing + optimizer + max(weights + activations + workspace, weights + optimizer)
    return MemoryView(
        weights_bytes=weights,
        gradients_bytes=weights,
        optimizer_bytes=optimizer,
        activations_bytes=activations,
        workspace_bytes=workspace,
        buffers_bytes=buffers,
        dataset_bytes=dataset,
        communication_bytes=communication,
        runtime_bytes=runtime,
        fresh_bytes=fresh,
        resumed_bytes=resumed,
        rank_bytes=max(fresh, resumed),
        total_bytes=max(fresh, resumed) * batch.ranks,
    )


def _dataset(known: Known) -> int:
    if known.text:
        return known.items * INT64
    return known.items * (math.prod(known.shape) * FP32 + INT64)
