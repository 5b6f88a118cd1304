"""Weights and gradients between steps: how they are distributed, and how large they are layer by layer."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from stoker.events import Metrics
from stoker.spec.debug.inspection import Histograms
from worker.trainer.runtime.artifact import ArtifactWriter
from worker.trainer.runtime.journal import Journal
from worker.trainer.runtime.shards import whole


def histogram(values: torch.Tensor, bins: int) -> dict[str, Any]:
    """Counts in bins of equal width over the finite values, with what bounds them; values that are no number are counted apart."""
    numbers = values.detach().flatten().double()
    finite = numbers[numbers.isfinite()]
    if len(finite) == 0:
        return {"not_finite": len(numbers), "low": None, "high": None, "mean": None, "std": None, "counts": [0] * bins}
    low, high = finite.min().item(), finite.max().item()
    counts = torch.histc(finite, bins, low, high) if high > low else torch.zeros(bins, dtype=torch.float64)
    if high == low:  # one value fills no range
        counts[0] = len(finite)
    return {
        "not_finite": len(numbers) - len(finite),
        "low": low,
        "high": high,
        "mean": finite.mean().item(),
        "std": finite.std(correction=0).item(),
        "counts": [int(count) for count in counts.tolist()],
    }


@dataclass(frozen=True)
class KeepHistograms:
    """Every rank takes part, since weights may be in shards; the first one writes."""

    spec: Histograms
    model: nn.Module
    artifacts: ArtifactWriter

    def __call__(self, step: int) -> None:
        made = {name: histogram(values, self.spec.bins) for name, values in self._tensors() if self.artifacts.is_lead}
        self.artifacts.text(f"histograms/step-{step:08d}.json", json.dumps({"step": step, "tensors": made}) + "\n")

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, weight in self.model.named_parameters():
            if self.spec.weights:
                yield f"weights/{name}", whole(weight.detach())
            if self.spec.gradients and weight.grad is not None:
                yield f"gradients/{name}", whole(weight.grad)


@dataclass(frozen=True)
class ReportGradientNorms:
    """Per module that has weights of its own, the norm of all its gradients together."""

    model: nn.Module
    journal: Journal

    def __call__(self, step: int) -> None:
        norms = {}
        for name, module in self.model.named_modules():
            gradients = [whole(p.grad).flatten() for p in module.parameters(recurse=False) if p.grad is not None]
            if gradients:
                norms[f"gradient/{name or 'model'}"] = torch.linalg.vector_norm(torch.cat(gradients).double())
        if norms:
            values = torch.stack(list(norms.values())).tolist()
            self.journal.write(Metrics(step=step, values=dict(zip(norms, values, strict=True)), t=time.time()))
