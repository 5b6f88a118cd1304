"""Rules of `interpretability`."""

from collections.abc import Iterator

from stoker.spec.interpretability import (
    DeepLift,
    FeatureAblation,
    IntegratedGradients,
    LayerGradCam,
    LayerwiseRelevance,
    Occlusion,
    PermutationImportance,
)
from stoker.spec.model import CNN, MLP, Layers
from stoker.spec.model.layers import AttentionLayer, Conv, EmbeddingLayer, Layer, RecurrentLayer, Residual
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.rules._strategies import whole_on_each_rank
from stoker.spec.task import CausalLM, MaskedLM, Multilabel, Regression
from stoker.spec.task.multi_task import MultiTask


@rule(
    "text-unexplained",
    reads=("/data/source", "/interpretability"),
    message="texts of a table have no features whose share could be measured",
    hint="remove `interpretability`",
)
def text_unexplained(case: Case) -> Iterator[Hit]:
    if case.text_in_table and case.spec.interpretability is not None:
        yield hit("/interpretability")


@rule(
    "interpretability-needs-whole-model",
    reads=("/interpretability", "/distributed"),
    message="attributions run the model on one rank, and here no rank is sure to have all of it",
    hint="use strategy single, or ddp with whole models, or remove `interpretability`",
)
def explained_whole(case: Case) -> Iterator[Hit]:
    if case.spec.interpretability is not None and not whole_on_each_rank(case.spec.distributed):
        yield hit("/interpretability")


@rule(
    "interpretability-text",
    reads=("/interpretability", "/task/type"),
    message="{what} changes numbers, and text is made of tokens",
    hint="use method integrated_gradients with baseline zero",
)
def explained_text(case: Case) -> Iterator[Hit]:
    asked = case.spec.interpretability
    if asked is None or not isinstance(case.spec.task, CausalLM):
        return
    if not isinstance(asked.method, IntegratedGradients):
        yield hit("/interpretability/method", ("integrated_gradients",), what=f"method {asked.method.type}")
    if asked.baseline != "zero":
        yield hit("/interpretability/baseline", ("zero",), what=f"baseline {asked.baseline}")


@rule(
    "interpretability-of-gaps",
    reads=("/interpretability", "/task/type"),
    message="attributions explain one answer for each sample, and masked_lm fills in many tokens",
    hint="remove `interpretability`",
)
def explained_gaps(case: Case) -> Iterator[Hit]:
    """What is explained of text is what the model says after its last token; of tokens filled in there is no such one."""
    if case.spec.interpretability is not None and isinstance(case.spec.task, MaskedLM):
        yield hit("/interpretability")


@rule(
    "interpretability-split",
    reads=("/interpretability", "/data/split"),
    message="`interpretability.split` is {split}, and `data.split.{split}` is 0",
    hint="hold out a share, or explain another split",
)
def explained_split(case: Case) -> Iterator[Hit]:
    asked, split = case.spec.interpretability, case.spec.data.split
    if asked is not None and {"test": split.test, "validation": split.validation, "train": 1.0}[asked.split] == 0:
        yield hit("/interpretability/split", split=asked.split)


@rule(
    "interpretability-targets",
    reads=("/interpretability", "/task", "/data"),
    message="`interpretability.targets: {what}` is no output: {why}",
    hint="use predicted, or indices of outputs",
)
def explained_targets(case: Case) -> Iterator[Hit]:
    asked, task = case.spec.interpretability, case.spec.task
    if asked is None or asked.targets == "predicted":
        return
    if asked.targets == "label":
        if isinstance(task, Multilabel | MultiTask | Regression):
            yield hit("/interpretability/targets", what="label", why="numbers have no class")
        return
    outputs = case.problem.outputs
    over = [index for index in asked.targets if outputs is not None and index >= outputs]
    if over:
        yield hit("/interpretability/targets", what=over[0], why=f"the model has {outputs} outputs, from 0")


@rule(
    "interpretability-idle",
    reads=("/interpretability",),
    message="method {method} has no use for `interpretability.{key}`",
    hint="remove `{key}`, or use another method",
)
def explained_idle(case: Case) -> Iterator[Hit]:
    """Keys that the method has no use for."""
    asked = case.spec.interpretability
    if asked is None:
        return
    if asked.baseline != "zero" and not isinstance(asked.method, IntegratedGradients | DeepLift | Occlusion | FeatureAblation):
        yield hit("/interpretability/baseline", key="baseline", method=asked.method.type)
    if asked.targets != "predicted" and isinstance(asked.method, PermutationImportance):
        yield hit("/interpretability/targets", key="targets", method=asked.method.type)


@rule(
    "interpretability-model",
    reads=("/interpretability", "/model"),
    message="method {method} is for models of type {models}",
    hint="use integrated_gradients, which is for all",
)
def explained_model(case: Case) -> Iterator[Hit]:
    """Methods that follow the layers of a model know those of some models only."""
    asked, model = case.spec.interpretability, case.spec.model
    if asked is None:
        return
    match asked.method:
        case DeepLift() | LayerwiseRelevance():
            followed = isinstance(model, MLP) or (isinstance(model, Layers) and not any(map(_looks_around, model.layers)))
            if not followed:
                models = "mlp, and layers without attention, rnn and embedding"
                yield hit("/interpretability/method", method=asked.method.type, models=models)
        case LayerGradCam():
            if not isinstance(model, CNN) and not (isinstance(model, Layers) and any(map(_convolves, model.layers))):
                yield hit("/interpretability/method", method=asked.method.type, models="cnn, and layers with a conv")
        case _:
            return


def _looks_around(layer: Layer) -> bool:
    """Whether it does something that methods which go through a model layer by layer do not know."""
    inside = (*layer.layers, *layer.shortcut) if isinstance(layer, Residual) else ()
    return isinstance(layer, AttentionLayer | RecurrentLayer | EmbeddingLayer) or any(map(_looks_around, inside))


def _convolves(layer: Layer) -> bool:
    inside = (*layer.layers, *layer.shortcut) if isinstance(layer, Residual) else ()
    return isinstance(layer, Conv) or any(map(_convolves, inside))


@rule(
    "occlusion-stride",
    reads=("/interpretability",),
    message="a stride of {stride} leaves out places between windows of {window}",
    hint="lower stride to the window or below",
)
def occlusion_stride(case: Case) -> Iterator[Hit]:
    asked = case.spec.interpretability
    if asked is not None and isinstance(asked.method, Occlusion) and asked.method.stride > asked.method.window:
        yield hit("/interpretability/method/stride", stride=asked.method.stride, window=asked.method.window)
