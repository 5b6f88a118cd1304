"""What is looked at inside a run: it exists, once, and where a whole model is at hand."""

from collections.abc import Iterator
from typing import assert_never

from stoker.spec.distributed import DDP, FSDP, Auto, Distributed, Horovod, LocalSGD, ParameterServer, Single
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
from stoker.spec.rules._rule import Case, Hit, Rule, hit
from stoker.spec.rules.lengths import RUN_READS, total_steps
from stoker.spec.task import CausalLM, MaskedLM, Multilabel, Regression
from stoker.spec.task.multi_task import MultiTask


def whole_on_each_rank(spec: Distributed) -> bool:
    """Whether a rank can run the model by itself."""
    match spec:
        case Single() | Horovod() | LocalSGD():
            return True
        case DDP():
            return spec.data_parts == spec.world_size
        case Auto() | FSDP() | ParameterServer():
            return False
        case _:
            assert_never(spec)


def gradients_elsewhere(case: Case) -> Iterator[Hit]:
    """Rank 0 reports what it has: its own gradients, which servers add to those of others."""
    debug = case.spec.debug
    if not isinstance(case.spec.distributed, ParameterServer):
        return
    if debug.histograms is not None and debug.histograms.gradients:
        yield hit("/debug/histograms/gradients", key="histograms.gradients")
    if debug.gradients is not None:
        yield hit("/debug/gradients", key="gradients")


def probes_need_whole_model(case: Case) -> Iterator[Hit]:
    if case.spec.debug.probes and not whole_on_each_rank(case.spec.distributed):
        yield hit("/debug/probes")


def probe_twice(case: Case) -> Iterator[Hit]:
    seen: set[tuple[str, str]] = set()
    for index, probe in enumerate(case.spec.debug.probes):
        if (probe.module, probe.what) in seen:
            yield hit(f"/debug/probes/{index}", what=probe.what, module=probe.module)
        seen.add((probe.module, probe.what))


def histograms_of_nothing(case: Case) -> Iterator[Hit]:
    histograms = case.spec.debug.histograms
    if histograms is not None and not histograms.weights and not histograms.gradients:
        yield hit("/debug/histograms")


def profiler_after_end(case: Case) -> Iterator[Hit]:
    profiler, total = case.spec.debug.profiler, total_steps(case)
    if profiler is not None and total is not None and profiler.start_step + profiler.active_steps > total:
        yield hit("/debug/profiler", last=profiler.start_step + profiler.active_steps, total=total)


def explained_whole(case: Case) -> Iterator[Hit]:
    if case.spec.interpretability is not None and not whole_on_each_rank(case.spec.distributed):
        yield hit("/interpretability")


def explained_text(case: Case) -> Iterator[Hit]:
    asked = case.spec.interpretability
    if asked is None or not isinstance(case.spec.task, CausalLM):
        return
    if not isinstance(asked.method, IntegratedGradients):
        yield hit("/interpretability/method", ("integrated_gradients",), what=f"method {asked.method.type}")
    if asked.baseline != "zero":
        yield hit("/interpretability/baseline", ("zero",), what=f"baseline {asked.baseline}")


def explained_gaps(case: Case) -> Iterator[Hit]:
    """What is explained of text is what the model says after its last token; of tokens filled in there is no such one."""
    if case.spec.interpretability is not None and isinstance(case.spec.task, MaskedLM):
        yield hit("/interpretability")


def explained_split(case: Case) -> Iterator[Hit]:
    asked, split = case.spec.interpretability, case.spec.data.split
    if asked is not None and {"test": split.test, "validation": split.validation, "train": 1.0}[asked.split] == 0:
        yield hit("/interpretability/split", split=asked.split)


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


def explained_idle(case: Case) -> Iterator[Hit]:
    """Keys that the method has no use for."""
    asked = case.spec.interpretability
    if asked is None:
        return
    if asked.baseline != "zero" and not isinstance(asked.method, IntegratedGradients | DeepLift | Occlusion | FeatureAblation):
        yield hit("/interpretability/baseline", key="baseline", method=asked.method.type)
    if asked.targets != "predicted" and isinstance(asked.method, PermutationImportance):
        yield hit("/interpretability/targets", key="targets", method=asked.method.type)


def occlusion_stride(case: Case) -> Iterator[Hit]:
    asked = case.spec.interpretability
    if asked is not None and isinstance(asked.method, Occlusion) and asked.method.stride > asked.method.window:
        yield hit("/interpretability/method/stride", stride=asked.method.stride, window=asked.method.window)


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


def _convolves(layer: Layer) -> bool:
    inside = (*layer.layers, *layer.shortcut) if isinstance(layer, Residual) else ()
    return isinstance(layer, Conv) or any(map(_convolves, inside))


def _looks_around(layer: Layer) -> bool:
    """Whether it does something that methods which go through a model layer by layer do not know."""
    inside = (*layer.layers, *layer.shortcut) if isinstance(layer, Residual) else ()
    return isinstance(layer, AttentionLayer | RecurrentLayer | EmbeddingLayer) or any(map(_looks_around, inside))


def sink_twice(case: Case) -> Iterator[Hit]:
    seen: set[str] = set()
    for index, sink in enumerate(case.spec.logging.sinks):
        if sink.type in seen:
            yield hit(f"/logging/sinks/{index}", sink=sink.type)
        seen.add(sink.type)


XAI = ("/interpretability",)
INSIGHT_RULES = (
    Rule("sink-twice", "R", ("/logging/sinks",), sink_twice, "sink {sink} stands in the list twice", "remove one"),
    Rule(
        "interpretability-needs-whole-model", "R", (*XAI, "/distributed"), explained_whole,
        "attributions run the model on one rank, and here no rank is sure to have all of it",
        "use strategy single, or ddp with whole models, or remove `interpretability`",
    ),
    Rule(
        "interpretability-text", "R", (*XAI, "/task/type"), explained_text,
        "{what} changes numbers, and text is made of tokens", "use method integrated_gradients with baseline zero",
    ),
    Rule(
        "interpretability-of-gaps", "R", (*XAI, "/task/type"), explained_gaps,
        "attributions explain one answer for each sample, and masked_lm fills in many tokens", "remove `interpretability`",
    ),
    Rule(
        "interpretability-split", "R", (*XAI, "/data/split"), explained_split,
        "`interpretability.split` is {split}, and `data.split.{split}` is 0", "hold out a share, or explain another split",
    ),
    Rule(
        "interpretability-targets", "R", (*XAI, "/task", "/data"), explained_targets,
        "`interpretability.targets: {what}` is no output: {why}", "use predicted, or indices of outputs",
    ),
    Rule(
        "interpretability-idle", "R", XAI, explained_idle,
        "method {method} has no use for `interpretability.{key}`", "remove `{key}`, or use another method",
    ),
    Rule(
        "interpretability-model", "R", (*XAI, "/model"), explained_model,
        "method {method} is for models of type {models}", "use integrated_gradients, which is for all",
    ),
    Rule(
        "occlusion-stride", "R", XAI, occlusion_stride,
        "a stride of {stride} leaves out places between windows of {window}", "lower stride to the window or below",
    ),
    Rule(
        "probes-need-whole-model", "R", ("/debug/probes", "/distributed"), probes_need_whole_model,
        "probes run the model on one rank, and here no rank is sure to have all of it", "use strategy single, or ddp with whole models, or remove `debug.probes`",
    ),
    Rule(
        "gradients-elsewhere", "R", ("/debug", "/distributed"), gradients_elsewhere,
        "`debug.{key}` is about gradients of the whole batch, and with parameter_server only the servers have them",
        "remove `debug.{key}`, or use another strategy",
    ),
    Rule(
        "probe-twice", "R", ("/debug/probes",), probe_twice,
        "the {what} of `{module}` is probed twice", "remove one",
    ),
    Rule(
        "histograms-of-nothing", "R", ("/debug/histograms",), histograms_of_nothing,
        "`debug.histograms` leaves out both weights and gradients", "turn one on, or remove histograms",
    ),
    Rule(
        "profiler-after-end", "R", ("/debug/profiler", *RUN_READS), profiler_after_end,
        "the profiler would end after step {last}, and the run has {total}", "lower start_step or active_steps, or train longer",
    ),
)  # fmt: skip
