"""The trainer's own models, measured: state, FLOPs and the bytes that autograd keeps."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from stoker.facts import DatasetFacts
from stoker.plan import plan
from stoker.plan.known import Known, known_of
from stoker.spec import JobSpec
from stoker.spec.derived.arithmetic import hidden_tokens
from stoker.spec.loss import MeanSquaredError
from stoker.spec.task import MaskedLM
from worker.trainer.activation_checkpointing import recomputing
from worker.trainer.loss import build_loss, build_masked_loss
from worker.trainer.model import build_model
from worker.trainer.optimizer import build_optimizer
from worker.trainer.precision import narrowed

NARROW = {"bf16_mixed": torch.bfloat16, "fp16_mixed": torch.float16}
"""Formats of products."""


@dataclass
class Kept:
    """Bytes of distinct storages kept for the backward pass, and those among them that are copies of weights."""

    bytes: int = 0


def model_of(spec: JobSpec, content: DatasetFacts, device: str = "meta") -> nn.Module:
    known = known_of(spec, content)
    with torch.device(device):
        return narrowed(
            build_model(spec.model, known.shape, known.outputs, text=known.text, vocabulary=known.vocabulary), spec.precision
        )


def batch_of_samples(spec: JobSpec, known: Known, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    if known.vocabulary is not None:
        return torch.randint(0, known.vocabulary, (batch, known.shape[0])), torch.randint(0, known.outputs, (batch,))
    if known.text:
        ids = torch.randint(0, known.outputs, (batch, known.shape[0]))
        return ids, ids.clone()
    if isinstance(spec.loss, MeanSquaredError):
        return torch.randn(batch, *known.shape), torch.randn(batch, known.outputs)
    return torch.randn(batch, *known.shape), torch.randint(0, known.outputs, (batch,))


def loss_of(spec: JobSpec, known: Known, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    assert spec.loss is not None
    if isinstance(spec.task, MaskedLM):
        targets = targets.masked_fill(
            torch.arange(targets.shape[1]) >= hidden_tokens(targets.shape[1], spec.task.mask_rate), -100
        )
        return build_masked_loss(spec.loss, known.outputs, targets)(outputs, targets)
    return build_loss(spec.loss, known.outputs, targets)(outputs, targets)


def flops(spec: JobSpec, content: DatasetFacts, batch: int) -> tuple[int, int]:
    """Of the forward pass, and of both, for a batch. Attention by its textbook kernel, the only one on CPU that is counted."""
    known = known_of(spec, content)
    model = model_of(spec, content, "cpu")
    inputs, targets = batch_of_samples(spec, known, batch)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss = loss_of(spec, known, model(inputs), targets)
        forward = counter.get_total_flops()
        loss.backward()
    return forward, counter.get_total_flops()


@contextmanager
def kept_bytes(model: nn.Module) -> Iterator[Kept]:
    """Measures what a forward pass inside keeps, weights and buffers of the model left out."""
    kept, own = Kept(), {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    alive = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            own.add(storage.data_ptr())
            alive.append(tensor)
            kept.bytes += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


def peak_of_training(spec: JobSpec, content: DatasetFacts, steps: int = 2) -> int:
    """Most bytes that PyTorch held at once for model, gradients, optimizer and activations, over some steps."""
    known, batch = known_of(spec, content), plan(spec, content).batch
    samples = batch_of_samples(spec, known, batch.micro)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        model = narrowed(
            build_model(spec.model, known.shape, known.outputs, text=known.text, vocabulary=known.vocabulary), spec.precision
        )
        model = recomputing(spec.activation_checkpointing, model)
        optimizer = build_optimizer(spec.optimizer, model.named_parameters())
        for _ in range(steps):
            optimizer.zero_grad()
            for _ in range(batch.accumulation):
                with torch.autocast("cpu", NARROW.get(spec.precision.mode), enabled=spec.precision.mixed):
                    loss = loss_of(spec, known, model(samples[0]), samples[1])
                loss.backward()
                del loss
            optimizer.step()
    held = most = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most
