"""What the model must be for its task and its inputs."""

from collections.abc import Callable, Iterator

from stoker.spec.model import GRU, LSTM, MLP, RNN, Layers, TransformerDecoder, TransformerEncoder
from stoker.spec.model.init import TorchInit
from stoker.spec.model.layers import Dropout, Layer, Norm, Pool, Residual
from stoker.spec.model.shapes import Misfit, infer, written
from stoker.spec.model.transformer import RotaryPosition, SinusoidalPosition, Transformer
from stoker.spec.rules._rule import Case, Hit, Rule, hit
from stoker.spec.task import CausalLM, MaskedLM


def model_fits_task(case: Case) -> Iterator[Hit]:
    if isinstance(case.spec.task, MaskedLM) or isinstance(case.spec.model, TransformerEncoder):
        yield from _encoder_fits(case)
        return
    decoder, language = isinstance(case.spec.model, TransformerDecoder), isinstance(case.spec.task, CausalLM)
    if isinstance(case.spec.model, RNN | LSTM | GRU):
        return
    if decoder != language:
        recurrent = ("rnn", "lstm", "gru")
        fitting = ("transformer_decoder", *recurrent) if language else ("mlp", "layers", *recurrent)
        yield hit("/model/type", fitting, model=case.spec.model.type, task=case.spec.task.type, fitting=", ".join(fitting))


def _encoder_fits(case: Case) -> Iterator[Hit]:
    """Who fills in hidden tokens sees all others, and who sees all others does not tell what comes next."""
    model, task = case.spec.model, case.spec.task
    if isinstance(task, MaskedLM) and not isinstance(model, TransformerEncoder):
        yield hit("/model/type", ("transformer_encoder",), model=model.type, task=task.type, fitting="transformer_encoder")
    if isinstance(task, CausalLM):
        fitting = ("transformer_decoder", "rnn", "lstm", "gru")
        yield hit("/model/type", fitting, model=model.type, task=task.type, fitting=", ".join(fitting))


def heads_divide(case: Case) -> Iterator[Hit]:
    model = case.spec.model
    if isinstance(model, Transformer) and model.key_dim is None:
        down = model.hidden_size // model.num_heads * model.num_heads
        nearest = down + model.num_heads if down == 0 or model.hidden_size - down > model.num_heads / 2 else down
        yield hit("/model/num_heads", heads=model.num_heads, size=model.hidden_size, nearest=nearest)


def kv_heads_divide(case: Case) -> Iterator[Hit]:
    model = case.spec.model
    if isinstance(model, Transformer) and model.num_kv_heads is not None and model.num_heads % model.num_kv_heads:
        below = next(n for n in range(min(model.num_kv_heads, model.num_heads), 0, -1) if model.num_heads % n == 0)
        yield hit("/model/num_kv_heads", kv_heads=model.num_kv_heads, heads=model.num_heads, nearest=below)


def rotary_dim(case: Case) -> Iterator[Hit]:
    model = case.spec.model
    if not isinstance(model, Transformer) or not isinstance(model.position, RotaryPosition):
        return
    dim, width = model.position.dim, model.key_dim
    if dim is not None and (dim % 2 or (width is not None and dim > width)):
        yield hit("/model/position/dim", dim=dim, width=width or "key_dim")


def sinusoidal_width(case: Case) -> Iterator[Hit]:
    model = case.spec.model
    if isinstance(model, Transformer) and isinstance(model.position, SinusoidalPosition) and model.hidden_size % 2:
        yield hit("/model/hidden_size", size=model.hidden_size, nearest=model.hidden_size + 1)


def high_dropout(case: Case) -> Iterator[Hit]:
    for pointer, p in _dropouts(case):
        if p > 0.5:
            yield hit(pointer, p=f"{p:g}")


def _dropouts(case: Case) -> Iterator[tuple[str, float]]:
    match case.spec.model:
        case MLP(dropout=p) | RNN(dropout=p) | LSTM(dropout=p) | GRU(dropout=p):
            yield "/model/dropout", p
        case TransformerDecoder() | TransformerEncoder() as model:
            for key in ("dropout", "attention_dropout", "embedding_dropout"):
                yield f"/model/{key}", getattr(model, key)
        case Layers(layers=layers):
            for pointer, layer in _every(layers, "/model/layers"):
                if isinstance(layer, Dropout):
                    yield f"{pointer}/p", layer.p


def _every(layers: tuple[Layer, ...], at: str) -> Iterator[tuple[str, Layer]]:
    for index, layer in enumerate(layers):
        yield f"{at}/{index}", layer
        if isinstance(layer, Residual):
            yield from _every(layer.layers, f"{at}/{index}/layers")


def _stack(case: Case) -> Iterator[tuple[str, Layer]]:
    if isinstance(case.spec.model, Layers):
        yield from _every(case.spec.model.layers, "/model/layers")


def global_pool_window(case: Case) -> Iterator[Hit]:
    for pointer, layer in _stack(case):
        if isinstance(layer, Pool) and layer.kind == "global_avg":
            for key in ("kernel_size", "stride"):
                if getattr(layer, key) is not None:
                    yield hit(f"{pointer}/{key}", key=key)


def momentum_needs_batch(case: Case) -> Iterator[Hit]:
    for pointer, layer in _stack(case):
        if isinstance(layer, Norm) and layer.kind != "batch" and layer.momentum is not None:
            yield hit(f"{pointer}/momentum", kind=layer.kind)


def scaling_needs_residuals(case: Case) -> Iterator[Hit]:
    model = case.spec.model
    if isinstance(model.init, TorchInit) or model.init.residual_scaling == "none" or isinstance(model, Transformer):
        return
    if not any(isinstance(layer, Residual) for _, layer in _stack(case)):
        yield hit("/model/init/residual_scaling")


def _misfit(case: Case) -> Misfit | None:
    model, shape = case.spec.model, case.problem.input_shape
    if not isinstance(model, Layers) or shape is None:
        return None
    try:
        infer(model.layers, shape)
    except Misfit as misfit:
        return misfit
    return None


def _finds(kind: str) -> Callable[[Case], Iterator[Hit]]:
    def find(case: Case) -> Iterator[Hit]:
        misfit = _misfit(case)
        if misfit is not None and misfit.kind == kind:
            yield hit(f"/model/layers{misfit.pointer}", **misfit.holes)

    return find


def outputs_fit(case: Case) -> Iterator[Hit]:
    model, shape, outputs = case.spec.model, case.problem.input_shape, case.problem.outputs
    if not isinstance(model, Layers) or shape is None or outputs is None or isinstance(case.spec.task, CausalLM):
        return
    if _misfit(case) is None and (end := infer(model.layers, shape)) != (outputs,):
        yield hit(f"/model/layers/{len(model.layers) - 1}", end=written(end), outputs=outputs)


SHAPES = ("/model", "/data", "/task")

ARCHITECTURE_RULES = (
    Rule(
        "model-fits-task", "R", ("/model/type", "/task/type"), model_fits_task,
        "model {model} does not fit task {task}", "use {fitting}, or another task",
    ),
    Rule(
        "heads-divide", "R", ("/model",), heads_divide,
        "{heads} heads do not divide hidden_size {size}", "set hidden_size to {nearest}, change num_heads, or set key_dim",
    ),
    Rule(
        "kv-heads-divide", "R", ("/model",), kv_heads_divide,
        "{kv_heads} key-value heads do not divide {heads} heads", "set num_kv_heads to {nearest}",
    ),
    Rule(
        "rope-dim", "R", ("/model",), rotary_dim,
        "rope turns {dim} dimensions, which must be an even number of at most {width}", "set `model.position.dim`",
    ),
    Rule(
        "sinusoidal-width", "R", ("/model",), sinusoidal_width,
        "sines and cosines come in pairs, and hidden_size {size} is odd", "set hidden_size to {nearest}",
    ),
    Rule("high-dropout", "W", ("/model",), high_dropout, "a dropout of {p} drops more than half", "0.1 to 0.5 is usual"),
    Rule(
        "global-pool-window", "R", ("/model",), global_pool_window,
        "global_avg pools everything and takes no {key}", "remove it",
    ),
    Rule(
        "momentum-needs-batch-norm", "R", ("/model",), momentum_needs_batch,
        "norm {kind} keeps no running statistics and takes no momentum", "remove it",
    ),
    Rule(
        "residual-scaling-needs-residuals", "R", ("/model",), scaling_needs_residuals,
        "`residual_scaling` scales residual branches, and this model has none", "set none",
    ),
    Rule(
        "layer-dimensions", "R", SHAPES, _finds("dimensions"),
        "{kind} needs (channels, length) or (channels, height, width), but gets {given}", "move it before flatten, or remove it",
    ),
    Rule(
        "layer-groups", "R", SHAPES, _finds("groups"),
        "{groups} groups do not divide {inputs} input and {outputs} output channels", "choose a common divisor",
    ),
    Rule(
        "layer-numbers", "R", SHAPES, _finds("numbers"),
        "{given} numbers for {dimensions} dimensions", "give one number, or one per dimension",
    ),
    Rule(
        "layer-window", "R", SHAPES, _finds("window"),
        "a window of {window} does not fit into {extent}", "pad it, make it smaller, or pool less before",
    ),
    Rule(
        "residual-shape", "R", SHAPES, _finds("residual"),
        "a residual stack must keep its shape, but turns {given} into {end}", "pad convolutions, and end with as many channels or units",
    ),
    Rule(
        "layers-output", "R", SHAPES, outputs_fit,
        "the last layer gives {end}, and the task needs ({outputs},)", "end with flatten or global_avg, then linear with units: {outputs}",
    ),
)  # fmt: skip
