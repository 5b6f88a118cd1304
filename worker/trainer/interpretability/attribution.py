"""Methods of captum applied to a trained model. Imported only by runs that explain: captum takes seconds to load."""

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import assert_never

import torch
from captum.attr import (
    LRP,
    DeepLift,
    FeatureAblation,
    FeaturePermutation,
    GradientShap,
    IntegratedGradients,
    LayerAttribution,
    LayerGradCam,
    LayerIntegratedGradients,
    Occlusion,
    Saliency,
)
from captum.attr._utils.lrp_rules import IdentityRule
from torch import nn

from stoker.spec import interpretability as asked
from worker.trainer.errors import SpecProblem

EXACT_BELOW = 50_000_000
"""Models with at most as many parameters are explained in float64, in which completeness holds to the last digits."""
MeanLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Target:
    """Which output of each sample is explained."""

    name: str
    indices: torch.Tensor
    """(n,) int64."""


@dataclass(frozen=True)
class Attribution:
    target: Target
    values: torch.Tensor
    """(n, *shape) of the samples; (1, *shape) where samples are taken together."""
    completeness_error: float | None
    """Largest distance between the sum of a sample's values and the difference of outputs to the baseline's."""


@dataclass(frozen=True)
class Subject:
    """A model in evaluation mode and what it is explained with."""

    model: nn.Module
    inputs: torch.Tensor
    labels: torch.Tensor
    reference: torch.Tensor
    """Training samples."""
    baseline: torch.Tensor
    """(1, *shape) of one sample that stands for nothing."""
    mean_loss: MeanLoss
    batch: int
    """Samples that go through the model at once."""

    @property
    def text(self) -> bool:
        return not self.inputs.is_floating_point()

    def chunks(self, target: "Target") -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Inputs and the outputs to explain, as many as go through the model at once."""
        return zip(torch.split(self.inputs, self.batch), torch.split(target.indices, self.batch), strict=True)

    def said(self) -> torch.Tensor:
        """Outputs of all samples."""
        with torch.no_grad():
            return torch.cat([self.outputs(part) for part in torch.split(self.inputs, self.batch)])

    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """(n, outputs); of text, those that say the token after the last."""
        made: torch.Tensor = self.model(inputs)
        return made[:, -1] if self.text else made


def subject_of(
    model: nn.Module,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    reference: torch.Tensor,
    baseline: torch.Tensor,
    mean_loss: MeanLoss,
    batch: int,
) -> Subject:
    """Of a copy of the model, so that hooks and number formats leave the run's own alone."""
    exact = sum(p.numel() for p in model.parameters()) <= EXACT_BELOW
    kind = torch.float64 if exact else torch.float32

    def cast(values: torch.Tensor) -> torch.Tensor:
        return values.to(kind) if values.is_floating_point() else values

    own = copy.deepcopy(model).to(kind).eval()
    return Subject(own, cast(inputs), cast(labels), cast(reference), cast(baseline), mean_loss, batch)


def explain(spec: asked.Interpretability, subject: Subject, targets: list[Target]) -> Iterator[Attribution]:
    """One attribution per target. Raises SpecProblem where the method cannot be applied to the model."""
    method = spec.method
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says what it sets up, and what its own dependencies changed
        if isinstance(method, asked.PermutationImportance):
            yield _permuted(method, subject)
            return
        if isinstance(method, asked.IntegratedGradients):
            for target in targets:
                yield _integrated(method, subject, target)
            return
        attribute = _attributor(method, subject)
        for target in targets:
            chunks = subject.chunks(target)
            values = torch.cat([attribute(inputs, indices).detach() for inputs, indices in chunks])
            yield Attribution(target, values, None)


def _integrated(method: asked.IntegratedGradients, subject: Subject, target: Target) -> Attribution:
    """Of text, through the embedding of its tokens."""
    if subject.text:
        layer = next((m for m in subject.model.modules() if isinstance(m, nn.Embedding)), None)
        if layer is None:
            raise SpecProblem("interpretability: the model has no embedding of tokens to trace its output back to")
        tool = LayerIntegratedGradients(subject.outputs, layer)
    else:
        tool = IntegratedGradients(subject.outputs)
    values, errors = [], []
    for inputs, indices in subject.chunks(target):
        made, error = tool.attribute(
            inputs,
            baselines=subject.baseline.expand_as(inputs),
            target=indices,
            n_steps=method.steps,
            internal_batch_size=max(subject.batch, 2),
            return_convergence_delta=True,
        )
        values.append(made.detach().sum(-1) if subject.text else made.detach())
        errors.append(error.detach().abs().max())
    return Attribution(target, torch.cat(values), float(torch.stack(errors).max()))


def _permuted(method: asked.PermutationImportance, subject: Subject) -> Attribution:
    """The rise of the mean loss, over all samples at once."""

    def loss(inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return subject.mean_loss(subject.outputs(inputs), subject.labels)

    tool = FeaturePermutation(loss)
    rises = [-tool.attribute(subject.inputs) for _ in range(method.repeats)]
    nobody = torch.zeros(0, dtype=torch.int64)
    return Attribution(Target("loss", nobody), torch.stack(rises).mean(0), None)


Attribute = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Inputs and the output to explain to attributions."""
ByTarget = (
    asked.Saliency
    | asked.DeepLift
    | asked.GradientShap
    | asked.LayerwiseRelevance
    | asked.Occlusion
    | asked.FeatureAblation
    | asked.LayerGradCam
)


def _attributor(method: ByTarget, subject: Subject) -> Attribute:
    model, baseline = subject.model, subject.baseline
    match method:
        case asked.Saliency():
            saliency = Saliency(model)
            return lambda x, y: saliency.attribute(x, target=y)
        case asked.DeepLift():
            lift = DeepLift(model)
            return lambda x, y: lift.attribute(x, baselines=baseline, target=y)
        case asked.GradientShap():
            shap, draws, noise = GradientShap(model), method.draws, method.noise
            return lambda x, y: shap.attribute(x, baselines=subject.reference, target=y, n_samples=draws, stdevs=noise)
        case asked.LayerwiseRelevance():
            return _relevance(model)
        case asked.Occlusion():
            return _occlusion(method, model, baseline)
        case asked.FeatureAblation():
            ablation = FeatureAblation(model)
            return lambda x, y: ablation.attribute(x, baselines=baseline, target=y)
        case asked.LayerGradCam():
            return _grad_cam(method, model)
        case _:
            assert_never(method)


def _relevance(model: nn.Module) -> Attribute:
    for module in model.modules():
        if isinstance(module, nn.Flatten):
            module.rule = IdentityRule()  # captum looks for it there
    tool = LRP(model)

    def attribute(inputs: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        try:
            made: torch.Tensor = tool.attribute(inputs, target=indices)
        except TypeError as error:
            raise SpecProblem(f"interpretability.method: lrp has no rule for a layer of this model: {error}") from error
        return made

    return attribute


def _occlusion(method: asked.Occlusion, model: nn.Module, baseline: torch.Tensor) -> Attribute:
    """A window over all channels."""
    shape = baseline.shape[1:]
    window = shape[:1] + tuple(min(method.window, n) for n in shape[1:]) if len(shape) > 1 else (min(method.window, shape[0]),)
    strides = shape[:1] + tuple(min(method.stride, n) for n in window[1:]) if len(shape) > 1 else (min(method.stride, window[0]),)
    tool = Occlusion(model)
    return lambda x, y: tool.attribute(
        x, sliding_window_shapes=tuple(window), strides=tuple(strides), baselines=baseline.expand_as(x), target=y
    )


def _grad_cam(method: asked.LayerGradCam, model: nn.Module) -> Attribute:
    found = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv1d | nn.Conv2d)}
    if not found or (method.layer is not None and method.layer not in found):
        there = f"there are {', '.join(list(found)[:10])}" if found else "the model has no convolution"
        raise SpecProblem(f"interpretability.method.layer: {method.layer or 'the last convolution'} is not there; {there}")
    tool = LayerGradCam(model, found[method.layer or list(found)[-1]])

    def attribute(inputs: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        made = tool.attribute(inputs, target=indices, relu_attributions=True)
        grown: torch.Tensor = LayerAttribution.interpolate(made, tuple(inputs.shape[2:]))
        return grown

    return attribute
