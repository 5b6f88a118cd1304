"""What the finished model pays attention to. Built by `worker.trainer.interpretability`."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from stoker.spec.base import Count, Knob, NonNegative, Spec
from stoker.spec.debug.inspection import ModulePath

ROWS = ("XAI-01",)


class IntegratedGradients(Spec):
    """Gradients along the way from a baseline to the input (Sundararajan et al. 2017); they add up to the difference of outputs."""

    type: Literal["integrated_gradients"] = "integrated_gradients"
    """Which method this is."""
    steps: Annotated[Annotated[int, Field(ge=2, le=1000)], Knob("passes", ("speed", "quality"), ROWS)] = 64
    """Points on the way, by Gauss-Legendre quadrature."""


class Saliency(Spec):
    """Size of the gradient of the output with respect to each feature (Simonyan et al. 2013)."""

    type: Literal["saliency"] = "saliency"
    """Which method this is."""


class DeepLift(Spec):
    """Differences of activations to those of the baseline, handed back layer by layer (Shrikumar et al. 2017)."""

    type: Literal["deep_lift"] = "deep_lift"
    """Which method this is."""


class GradientShap(Spec):
    """Expected gradients between noisy inputs and training samples, an estimate of SHAP values (Lundberg & Lee 2017)."""

    type: Literal["gradient_shap"] = "gradient_shap"
    """Which method this is."""
    draws: Annotated[Annotated[int, Field(ge=1, le=1000)], Knob("draws", ("speed", "quality"), ROWS)] = 32
    """Random points per sample, each between it and a training sample."""
    noise: Annotated[NonNegative, Knob("standard deviation", ("quality",), ROWS)] = 0.0
    """Standard deviation of what is added to the inputs."""


class LayerwiseRelevance(Spec):
    """Relevance of the output, handed back layer by layer in proportion to contributions (Bach et al. 2015)."""

    type: Literal["lrp"] = "lrp"
    """Which method this is."""


class Occlusion(Spec):
    """Drop of the output when a window of the input is replaced by the baseline (Zeiler & Fergus 2014)."""

    type: Literal["occlusion"] = "occlusion"
    """Which method this is."""
    window: Annotated[Count, Knob("places", ("speed", "quality"), ROWS)] = 3
    """Width of the window along every dimension but the channels."""
    stride: Annotated[Count, Knob("places", ("speed", "quality"), ROWS)] = 1
    """Places that the window moves; at most its width."""


class FeatureAblation(Spec):
    """Drop of the output when one feature at a time is replaced by the baseline."""

    type: Literal["feature_ablation"] = "feature_ablation"
    """Which method this is."""


class PermutationImportance(Spec):
    """Rise of the loss when one feature at a time is shuffled among the samples (Breiman 2001)."""

    type: Literal["permutation_importance"] = "permutation_importance"
    """Which method this is."""
    repeats: Annotated[Annotated[int, Field(ge=1, le=1000)], Knob("shuffles", ("speed", "quality"), ROWS)] = 5
    """Shuffles of each feature; the rises are averaged."""


class LayerGradCam(Spec):
    """Where a convolution looks: its channels, weighted by their mean gradients (Selvaraju et al. 2017)."""

    type: Literal["layer_grad_cam"] = "layer_grad_cam"
    """Which method this is."""
    layer: Annotated[ModulePath | None, Knob(affects=("quality",), rows=ROWS)] = None
    """Path of the convolution; unset, the last one."""


def _spelled_out(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


AnyMethod = Annotated[
    IntegratedGradients
    | Saliency
    | DeepLift
    | GradientShap
    | LayerwiseRelevance
    | Occlusion
    | FeatureAblation
    | PermutationImportance
    | LayerGradCam,
    Field(discriminator="type"),
]
MethodName = Literal[
    "integrated_gradients",
    "saliency",
    "deep_lift",
    "gradient_shap",
    "lrp",
    "occlusion",
    "feature_ablation",
    "permutation_importance",
    "layer_grad_cam",
]
"""What may stand alone; a test holds it equal to the types above."""
Method = Annotated[AnyMethod, BeforeValidator(_spelled_out, json_schema_input_type=AnyMethod | MethodName)]
"""A method by name, or by name with its parameters."""
Targets = Literal["predicted", "label"] | Annotated[tuple[Annotated[int, Field(ge=0, lt=100_000)], ...], Field(min_length=1)]


class Interpretability(Spec):
    """Attributions of the final model, at the end of the run: attributions.safetensors, and features ranked in attributions.json."""

    method: Annotated[Method, Knob(affects=("speed", "quality"), rows=ROWS)] = IntegratedGradients()
    """How the output is traced back to the input."""
    targets: Annotated[Targets, Knob(rows=ROWS)] = "predicted"
    """Which output is explained: the predicted class, the right one, or those listed; for numbers, predicted is each in turn."""
    baseline: Annotated[Literal["zero", "mean"], Knob(affects=("quality",), rows=ROWS)] = "zero"
    """What stands for nothing: zeros, as the model sees them (for text, token 0), or the mean of the training split."""
    split: Annotated[Literal["test", "validation", "train"], Knob(rows=ROWS)] = "test"
    """Which samples are explained."""
    samples: Annotated[Annotated[int, Field(ge=1, le=100_000)], Knob("samples", ("speed",), ROWS)] = 64
    """How many of them at most, the first of the split."""
