"""Rules of `model.layers`: layers fit each other, the samples and the task."""

from collections.abc import Iterator
from typing import assert_never

from stoker.spec.distributed import DDP, FSDP, Distributed
from stoker.spec.model import CNN, GAN, MLP, Layers, Transformer
from stoker.spec.model.layers import (
    Activate,
    AttentionLayer,
    Conv,
    Dropout,
    EmbeddingLayer,
    Flatten,
    Layer,
    Linear,
    Norm,
    Pool,
    Rearrange,
    RecurrentLayer,
    Reshape,
    Residual,
)
from stoker.spec.model.parts import BatchNorm
from stoker.spec.model.shapes import MISFITS, Shape, infer, written
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Find, Hit, hit, rule
from stoker.spec.task import CausalLM
from stoker.spec.task.multi_task import MultiTask


@rule(
    "layer-idle",
    reads=("/model",),
    message="`{key}` has no effect on {what}",
    hint="remove `{key}`",
)
def idle_keys(case: Case) -> Iterator[Hit]:
    for pointer, layer in case.layers:
        for key, what in _idle(layer):
            yield hit(f"{pointer}/{key}", key=key, what=what)
    for pointer, model, _ in case.networks:
        if isinstance(model, CNN) and model.block != "bottleneck" and model.expansion is not None:
            yield hit(f"{pointer}/expansion", key="expansion", what=f"block {model.block}")


def _idle(layer: Layer) -> Iterator[tuple[str, str]]:
    """Keys that are set and that the layer has no use for, and what it is."""
    match layer:
        case Pool(kind=kind):
            unused = ("output_size",) if layer.slides else ("kernel_size", "stride", "padding")
            unused = unused if layer.slides or kind.startswith("adaptive") else (*unused, "output_size")
            yield from ((key, f"pool {kind}") for key in unused if getattr(layer, key) is not None)
        case Norm(kind=kind):
            unused = ("groups",) if kind == "batch" else ("momentum", "track_running_stats", "sync")
            unused = unused if kind in ("batch", "group") else (*unused, "groups")
            yield from ((key, f"norm {kind}") for key in unused if getattr(layer, key) is not None)
        case RecurrentLayer(cell=cell):
            if layer.nonlinearity is not None and cell != "rnn":
                yield "nonlinearity", f"cell {cell}"
            if layer.forget_bias is not None and (cell != "lstm" or not layer.bias):
                yield "forget_bias", f"cell {cell}" if cell != "lstm" else "a cell without bias"
            if layer.dropout > 0 and layer.num_layers == 1:
                yield "dropout", "a single recurrent layer"
        case _:
            return


@rule(
    "norm-sync",
    reads=("/model", "/resources/device", "/distributed"),
    message="statistics are shared by GPUs that train one model together",
    hint="set `resources.device: cuda` and strategy ddp or fsdp with several ranks, or `sync: false`",
)
def sync_needs_ranks(case: Case) -> Iterator[Hit]:
    for pointer, _, sync in _batch_norms(case):
        if sync and (case.spec.resources.device != "cuda" or not _learns_together(case.spec.distributed)):
            yield hit(f"{pointer}/sync")


def _batch_norms(case: Case) -> Iterator[tuple[str, bool, bool]]:
    """Pointer, whether statistics are kept, whether ranks share them."""
    for at, model, _ in case.networks:
        match model:
            case (
                MLP(normalization=BatchNorm() as norm)
                | CNN(normalization=BatchNorm() as norm)
                | Transformer(normalization=BatchNorm() as norm)
            ):
                yield f"{at}/normalization", norm.track_running_stats, norm.sync
            case _:
                pass
    for pointer, layer in case.layers:
        if isinstance(layer, Norm) and layer.kind == "batch":
            yield pointer, layer.track_running_stats is not False, bool(layer.sync)


def _learns_together(spec: Distributed) -> bool:
    """Whether all ranks make the same step, each over a part of the batch."""
    return isinstance(spec, DDP | FSDP) and spec.data_parts > 1 and spec.data_parts == spec.world_size


@rule(
    "norm-untracked",
    reads=("/model",),
    message="without running statistics a sample is judged by the batch that it happens to be in",
    hint="set `track_running_stats: true`",
    level="W",
)
def untracked(case: Case) -> Iterator[Hit]:
    for pointer, tracked, _ in _batch_norms(case):
        if not tracked:
            yield hit(f"{pointer}/track_running_stats")


@rule(
    "layer-sees-ahead",
    reads=("/model", "/task/type"),
    message="a causal_lm must not see the tokens that it predicts, and this {kind} does",
    hint="use causal attention, or rnn that says steps in one direction",
)
def sees_ahead(case: Case) -> Iterator[Hit]:
    if not isinstance(case.spec.task, CausalLM):
        return
    for pointer, layer in case.layers:
        if (key := _looks_ahead(layer)) is not None:
            yield hit(f"{pointer}{key}", kind=layer.type)


def _looks_ahead(layer: Layer) -> str | None:
    """The key by which a layer lets a token see later ones, `` for the layer itself; None where it does not."""
    match layer:
        case AttentionLayer(causal=causal):
            return None if causal else "/causal"
        case RecurrentLayer(says="end"):
            return "/says"
        case RecurrentLayer(bidirectional=both):
            return "/bidirectional" if both else None
        case Norm(kind=kind):
            return None if kind in ("layer", "rms") else "/kind"
        case Conv() | Pool() | Flatten() | Reshape() | Rearrange():
            return ""
        case Linear() | Activate() | EmbeddingLayer() | Dropout() | Residual():
            return None
        case _:
            assert_never(layer)


@rule(
    "layers-output",
    reads=("/model", "/data", "/task"),
    message="the last layer gives {end}, and the task needs {wanted}",
    hint="end with flatten or global_avg, then linear with units: {outputs}; of text, with linear alone",
)
def outputs_fit(case: Case) -> Iterator[Hit]:
    outputs = case.problem.outputs
    if isinstance(case.spec.model, GAN) or outputs is None:
        return  # its two networks have a rule of their own
    for network in case.networks:
        _, model, start = network
        if not isinstance(model, Layers) or start is None or network.pointer in case.misfits:
            continue
        wanted: Shape = (*start.shape, outputs) if isinstance(case.spec.task, CausalLM) else (outputs,)
        if (end := infer(model.layers, start).shape) != wanted:
            yield hit(f"/model/layers/{len(model.layers) - 1}", end=written(end), wanted=written(wanted), outputs=outputs)


@rule(
    "multi-task-needs-last-layer",
    reads=("/task", "/model"),
    message="each task has a head in the place of a last linear layer, and {what}",
    hint="use mlp, or layers that end with a linear one",
)
def needs_last_layer(case: Case) -> Iterator[Hit]:
    model = case.spec.model
    if not isinstance(case.spec.task, MultiTask):
        return
    if not isinstance(model, MLP | Layers):
        yield hit("/model/type", ("mlp", "layers"), what=f"{model.type} learns from no table")
    elif isinstance(model, Layers) and not isinstance(model.layers[-1], Linear):
        yield hit(f"/model/layers/{len(model.layers) - 1}", what=f"the last layer is {model.layers[-1].type}")


SHAPES = ("/model", "/data", "/task")


def _finds(kind: str) -> Find:
    def find(case: Case) -> Iterator[Hit]:
        for network in case.networks:
            misfit = case.misfits.get(network.pointer)
            if misfit is not None and misfit.kind == kind and not (isinstance(network.model, CNN) and kind == "dimensions"):
                yield hit(f"{network.pointer}{misfit.pointer}", **misfit.holes)

    return find


MISFIT_RULES = tuple(
    rule("residual-shape" if kind == "residual" else f"layer-{kind}", reads=SHAPES, message=message, hint=hint)(_finds(kind))
    for kind, (message, hint) in MISFITS.items()
)
"""What may be wrong between layers; what a cnn does not read has a rule in `model/cnn.py`."""
