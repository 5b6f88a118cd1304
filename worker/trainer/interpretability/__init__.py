"""Interpretability spec into what is computed with the final weights, before they are saved for good."""

import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from stoker.spec.interpretability import (
    GradientShap,
    IntegratedGradients,
    Interpretability,
    PermutationImportance,
)
from worker.trainer.errors import SpecProblem
from worker.trainer.runtime.artifact import ArtifactWriter
from worker.trainer.runtime.part import Part

if TYPE_CHECKING:  # at run time it is imported by runs that explain something
    from worker.trainer.interpretability.attribution import Attribution, Subject, Target

RANKED = 1000
"""Features listed at most."""
REFERENCE = 256
"""Training samples that stand for the data set."""
TRIED = 2
"""Samples of the rehearsal."""


class Samples(Protocol):
    def __len__(self) -> int: ...

    def mean(self) -> torch.Tensor: ...

    def slice(self, start: int, stop: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]: ...


@dataclass(frozen=True)
class ExplainInputs:
    """What a run has to explain."""

    model: nn.Module
    train: Samples
    splits: Mapping[str, Samples]
    classes: bool
    """Whether outputs are classes or tokens, or numbers."""
    outputs: int
    columns: tuple[str, ...]
    mean_loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    batch: int
    device: torch.device
    seed: int


@dataclass(frozen=True)
class Explain:
    """Explains the model as it is when called. Every rank may rehearse; the first one explains and writes."""

    spec: Interpretability
    matter: ExplainInputs
    artifacts: ArtifactWriter

    @property
    def _samples(self) -> Samples:
        return self.matter.splits[self.spec.split]

    def __call__(self, step: int, reason: str) -> None:
        if self.artifacts.is_lead:
            subject = self._subject(self.spec.samples)
            with _drawn_from(self.matter.seed):
                found = list(self._explained(self.spec, subject))
            self._keep(subject, found, step)

    def rehearse(self) -> None:
        """With two samples and next to no work. Raises SpecProblem where the method cannot be applied to the model."""
        if len(self._samples) == 0:
            raise SpecProblem(f"interpretability.split: there are no {self.spec.split} samples; hold out a share, or use another")
        with torch.random.fork_rng(devices=[]):
            for _ in self._explained(_cheap(self.spec), self._subject(TRIED)):
                pass

    def _explained(self, spec: Interpretability, subject: "Subject") -> "Iterator[Attribution]":
        explain: Callable[..., Iterator[Attribution]] = _captum().explain
        return explain(spec, subject, self._targets(subject))

    def _subject(self, count: int) -> "Subject":
        matter = self.matter
        inputs, labels = self._samples.slice(0, min(count, len(self._samples)), matter.device)
        reference, _ = matter.train.slice(0, REFERENCE, matter.device)
        mean = self.spec.baseline == "mean"
        baseline = matter.train.mean().to(inputs) if mean else torch.zeros_like(inputs[:1])
        make: Callable[..., Subject] = _captum().subject_of
        return make(matter.model, inputs, labels, reference, baseline, matter.mean_loss, matter.batch)

    def _targets(self, subject: "Subject") -> "list[Target]":
        make: Callable[[str, torch.Tensor], Target] = _captum().Target
        count, wanted, device = len(subject.inputs), self.spec.targets, self.matter.device
        if wanted == "label":
            return [make("label", (subject.labels[:, -1] if subject.text else subject.labels).long())]
        if wanted == "predicted" and self.matter.classes:
            return [make("predicted", subject.said().argmax(-1))]
        chosen = range(self.matter.outputs) if wanted == "predicted" else wanted
        if over := [i for i in chosen if isinstance(i, int) and i >= self.matter.outputs]:
            raise SpecProblem(
                f"interpretability.targets: output {over[0]} does not exist; the model has outputs 0 to {self.matter.outputs - 1}"
            )
        return [make(f"output_{i}", torch.full((count,), int(i), device=device)) for i in chosen]

    def _keep(self, subject: "Subject", found: "list[Attribution]", step: int) -> None:
        tensors = {"inputs": subject.inputs, "outputs": subject.said(), "baseline": subject.baseline}
        for each in found:
            tensors |= {f"attributions/{each.target.name}": each.values, f"targets/{each.target.name}": each.target.indices}
        kept = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
        self.artifacts.keep("attributions.safetensors", lambda path: save_file(kept, path))
        said = {
            "step": step,
            "method": self.spec.method.model_dump(),
            "baseline": self.spec.baseline,
            "split": self.spec.split,
            "samples": len(subject.inputs),
            "targets": {each.target.name: self._said(each, subject.text) for each in found},
        }
        self.artifacts.text("attributions.json", json.dumps(said, indent=1) + "\n")

    def _said(self, each: "Attribution", text: bool) -> dict[str, Any]:
        signed = isinstance(self.spec.method, PermutationImportance)
        importance = (each.values if signed else each.values.abs()).double().mean(0)
        order = torch.argsort(importance.flatten(), descending=True, stable=True)[:RANKED].tolist()
        names = _names(tuple(importance.shape), self.matter.columns, text)
        ranking = [{"feature": names(i), "importance": importance.flatten()[i].item()} for i in order]
        return {"completeness_error": each.completeness_error, "ranking": ranking}


def _names(shape: tuple[int, ...], columns: tuple[str, ...], text: bool) -> Callable[[int], str | int | list[int]]:
    """How the feature at a flat index is called: its column, its place in the text, or its place in the array."""
    if len(shape) == 1 and len(columns) == shape[0]:
        return lambda index: columns[index]
    if len(shape) == 1 or text:
        return lambda index: index
    return lambda index: [int(place) for place in torch.unravel_index(torch.tensor(index), shape)]


def _cheap(spec: Interpretability) -> Interpretability:
    """The same with as little work as shows whether it works."""
    method = spec.method
    match method:
        case IntegratedGradients():
            return spec.model_copy(update={"method": method.model_copy(update={"steps": 2})})
        case GradientShap():
            return spec.model_copy(update={"method": method.model_copy(update={"draws": 1})})
        case PermutationImportance():
            return spec.model_copy(update={"method": method.model_copy(update={"repeats": 1})})
        case _:
            return spec


def _captum() -> Any:
    """The module that needs captum; typed where its parts are taken. Raises SpecProblem where captum is not installed."""
    try:
        return importlib.import_module("worker.trainer.interpretability.attribution")
    except ModuleNotFoundError as error:
        raise SpecProblem("interpretability needs the package captum, and this worker does not have it") from error


@contextmanager
def _drawn_from(seed: int) -> Iterator[None]:
    """Random numbers of torch and of NumPy, which captum's GradientShap draws from, begin at a seed; both go on as before after."""
    before = np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            yield
    finally:
        np.random.set_state(before)


def build_interpretability(spec: Interpretability | None, matter: ExplainInputs, artifacts: ArtifactWriter) -> Part:
    """What is done with the final weights. Raises SpecProblem, before the first step, where it could not be done."""
    if spec is None:
        return Part()
    explain = Explain(spec, matter, artifacts)
    explain.rehearse()
    return Part(finish_hooks=(explain,))
