"""Largest memory of one rank, by part."""

from stoker.plan.checkpoint import buffers_bytes, counters, moments
from stoker.plan.prediction import MemoryView
from stoker.plan.problem import Problem
from stoker.plan.tape import FP32, INT64, Tape
from stoker.spec import JobSpec
from stoker.spec.arithmetic import Batch

RUNTIME_BYTES = 320 << 20
"""Resident memory of one rank before it has a model: interpreter, PyTorch and the libraries of the trainer, measured."""
GPU_RUNTIME_BYTES = 640 << 20
"""A CUDA context with its kernels, on the device."""


def memory_of(spec: JobSpec, problem: Problem, tape: Tape, batch: Batch) -> MemoryView:
    weights = sum(w.size for w in tape.weights) * FP32
    tensors = sum(w.copies for w in tape.weights)
    optimizer = weights * moments(spec) + tensors * counters(spec) * FP32
    activations, workspace = tape.saved + tape.casts, 2 * tape.largest
    buffers, dataset = buffers_bytes(tape), _dataset(problem)
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


def _dataset(problem: Problem) -> int:
    if problem.text:
        return problem.total * INT64
    size = 1
    for side in problem.shape:
        size *= side
    return problem.total * (size * FP32 + INT64)
