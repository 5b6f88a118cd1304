"""What stacks of layers, and networks made of them, need of their samples, their task and each other."""

from collections.abc import Callable, Iterator
from typing import assert_never

from stoker.spec.distributed import DDP, FSDP, Distributed, Horovod, LocalSGD, Single
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
from stoker.spec.model.shapes import MISFITS, Misfit, Shape, infer, written
from stoker.spec.rules._networks import Network, networks
from stoker.spec.rules._rule import Case, Hit, Rule, hit
from stoker.spec.task import CausalLM


def every(layers: tuple[Layer, ...], at: str) -> Iterator[tuple[str, Layer]]:
    """All layers, those of residual stacks too, with their pointers."""
    for index, layer in enumerate(layers):
        yield f"{at}/{index}", layer
        if isinstance(layer, Residual):
            yield from every(layer.layers, f"{at}/{index}/layers")
            yield from every(layer.shortcut, f"{at}/{index}/shortcut")


def stack_of(case: Case) -> Iterator[tuple[str, Layer]]:
    """Of all networks of type layers."""
    for pointer, model, _ in networks(case):
        if isinstance(model, Layers):
            yield from every(model.layers, f"{pointer}/layers")


def idle_keys(case: Case) -> Iterator[Hit]:
    for pointer, layer in stack_of(case):
        for key, what in _idle(layer):
            yield hit(f"{pointer}/{key}", key=key, what=what)
    for pointer, model, _ in networks(case):
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


def _batch_norms(case: Case) -> Iterator[tuple[str, bool, bool]]:
    """Pointer, whether statistics are kept, whether ranks share them."""
    for at, model, _ in networks(case):
        match model:
            case (
                MLP(normalization=BatchNorm() as norm)
                | CNN(normalization=BatchNorm() as norm)
                | Transformer(normalization=BatchNorm() as norm)
            ):
                yield f"{at}/normalization", norm.track_running_stats, norm.sync
            case _:
                pass
    for pointer, layer in stack_of(case):
        if isinstance(layer, Norm) and layer.kind == "batch":
            yield pointer, layer.track_running_stats is not False, bool(layer.sync)


def sync_needs_ranks(case: Case) -> Iterator[Hit]:
    for pointer, _, sync in _batch_norms(case):
        if sync and (case.spec.resources.device != "cuda" or not _learns_together(case.spec.distributed)):
            yield hit(f"{pointer}/sync")


def _learns_together(spec: Distributed) -> bool:
    """Whether all ranks make the same step, each over a part of the batch."""
    return isinstance(spec, DDP | FSDP) and spec.data_parts > 1 and spec.data_parts == spec.world_size


def sharing_needs_whole_weights(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    whole = isinstance(spec, DDP) and spec.tensor_degree == spec.pipeline_degree == 1
    for at, model, _ in networks(case):
        if model.sharing and not whole and not isinstance(spec, Single | LocalSGD | Horovod):
            yield hit(f"{at}/sharing")


def sharing_twice(case: Case) -> Iterator[Hit]:
    """A part that takes another's weights and has some of them taken, or takes its own."""
    for at, model, _ in networks(case):
        for index, one in enumerate(model.sharing):
            if any(a == b or b.startswith(f"{a}.") for a, b in ((one.source, one.target), (one.target, one.source))):
                yield hit(f"{at}/sharing/{index}", source=one.source, target=one.target)


def sharing_exported(case: Case) -> Iterator[Hit]:
    if case.spec.model.sharing and "huggingface" in case.spec.checkpoint.export:
        yield hit("/checkpoint/export")


def untracked(case: Case) -> Iterator[Hit]:
    for pointer, tracked, _ in _batch_norms(case):
        if not tracked:
            yield hit(f"{pointer}/track_running_stats")


def sees_ahead(case: Case) -> Iterator[Hit]:
    if not isinstance(case.spec.task, CausalLM):
        return
    for pointer, layer in stack_of(case):
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


def _misfits(case: Case) -> Iterator[tuple[Network, Misfit]]:
    """Where the layers do not fit each other; of networks made of layers, at the field that they follow from."""
    for network in networks(case):
        if (misfit := misfit_of(network)) is not None:
            yield network, misfit


def misfit_of(network: Network) -> Misfit | None:
    _, model, start = network
    if start is None:
        return None
    try:
        match model:
            case Layers(layers=layers):
                infer(layers, start, "/layers")
            case CNN():
                infer(model.stack(1), start)
            case _:
                pass
    except Misfit as misfit:
        return misfit if isinstance(model, Layers) else Misfit(misfit.kind, CAUSES.get(misfit.kind, ""), misfit.holes)
    return None


CAUSES = {
    "dimensions": "/input_shape",
    "size": "/input_shape",
    "norm-groups": "/normalization/groups",
    "tokens": "/type",
    "window": "/stages",
}
"""Fields of a cnn behind what may be wrong with its layers."""


def _finds(kind: str) -> Callable[[Case], Iterator[Hit]]:
    def find(case: Case) -> Iterator[Hit]:
        for network, misfit in _misfits(case):
            if misfit.kind == kind and not _not_a_picture(network, misfit):
                yield hit(f"{network.pointer}{misfit.pointer}", **misfit.holes)

    return find


def _not_a_picture(network: Network, misfit: Misfit) -> bool:
    return isinstance(network.model, CNN) and misfit.kind == "dimensions"


def cnn_needs_pictures(case: Case) -> Iterator[Hit]:
    for network, misfit in _misfits(case):
        if _not_a_picture(network, misfit):
            yield hit(f"{network.pointer}/input_shape", given=misfit.holes["given"])


def outputs_fit(case: Case) -> Iterator[Hit]:
    outputs = case.problem.outputs
    if isinstance(case.spec.model, GAN) or outputs is None:
        return  # its two networks have a rule of their own
    for network in networks(case):
        _, model, start = network
        if not isinstance(model, Layers) or start is None or misfit_of(network) is not None:
            continue
        wanted: Shape = (*start.shape, outputs) if isinstance(case.spec.task, CausalLM) else (outputs,)
        if (end := infer(model.layers, start).shape) != wanted:
            yield hit(f"/model/layers/{len(model.layers) - 1}", end=written(end), wanted=written(wanted), outputs=outputs)


SHAPES = ("/model", "/data", "/task")
NAMES = {kind: "residual-shape" if kind == "residual" else f"layer-{kind}" for kind in MISFITS}
"""Of the rules, by what may be wrong."""

STACK_RULES = (
    Rule(
        "layer-idle", "R", ("/model",), idle_keys,
        "{what} has no use for `{key}`", "remove it",
    ),
    Rule(
        "norm-sync", "R", ("/model", "/resources/device", "/distributed"), sync_needs_ranks,
        "statistics are shared by GPUs that train one model together", "set `resources.device: cuda` and strategy ddp or fsdp with several ranks, or `sync: false`",
    ),
    Rule(
        "norm-untracked", "W", ("/model",), untracked,
        "without running statistics a sample is judged by the batch that it happens to be in", "set `track_running_stats: true`",
    ),
    Rule(
        "layer-sees-ahead", "R", ("/model", "/task/type"), sees_ahead,
        "a causal_lm must not see the tokens that it predicts, and this {kind} does", "use causal attention, or rnn that says steps in one direction",
    ),
    Rule(
        "sharing-whole-weights", "R", ("/model/sharing", "/distributed"), sharing_needs_whole_weights,
        "weights that parts share must be whole on each rank", "use strategy single, ddp with whole models, local_sgd or horovod; or remove `model.sharing`",
    ),
    Rule(
        "sharing-itself", "R", ("/model/sharing",), sharing_twice,
        "`{source}` and `{target}` are one inside the other", "name two parts that stand apart",
    ),
    Rule(
        "sharing-export", "R", ("/model/sharing", "/checkpoint/export"), sharing_exported,
        "a model in the Hugging Face format has weights of its own in every part", "export safetensors only, or remove `model.sharing`",
    ),
    *(Rule(NAMES[kind], "R", SHAPES, _finds(kind), message, hint) for kind, (message, hint) in MISFITS.items()),
    Rule(
        "cnn-input", "R", SHAPES, cnn_needs_pictures,
        "a cnn reads (channels, length) or (channels, height, width), but gets {given}", "set `model.input_shape`, for example [1, 8, 8], or use an mlp",
    ),
    Rule(
        "layers-output", "R", SHAPES, outputs_fit,
        "the last layer gives {end}, and the task needs {wanted}", "end with flatten or global_avg, then linear with units: {outputs}; of text, with linear alone",
    ),
)  # fmt: skip
