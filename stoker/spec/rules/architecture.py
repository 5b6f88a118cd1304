"""What the model must be for its task and its inputs."""

from collections.abc import Iterator

from stoker.spec.model import CNN, GAN, GRU, HF, LSTM, MLP, RNN, Layers, TransformerDecoder, TransformerEncoder
from stoker.spec.model.init import TorchInit
from stoker.spec.model.layers import AttentionLayer, Dropout, RecurrentLayer, Residual
from stoker.spec.model.transformer import RotaryPosition, SinusoidalPosition, Transformer
from stoker.spec.rules._networks import networks
from stoker.spec.rules._rule import Case, Hit, Rule, hit
from stoker.spec.rules.stacks import every
from stoker.spec.task import CausalLM, Generation, MaskedLM


def model_fits_task(case: Case) -> Iterator[Hit]:
    if isinstance(case.spec.model, HF):
        return  # what it is, is known where its files are
    if isinstance(case.spec.task, Generation) or isinstance(case.spec.model, GAN):
        yield from _gan_fits(case)
        return
    if isinstance(case.spec.task, MaskedLM) or isinstance(case.spec.model, TransformerEncoder):
        yield from _encoder_fits(case)
        return
    decoder, language = isinstance(case.spec.model, TransformerDecoder), isinstance(case.spec.task, CausalLM)
    if isinstance(case.spec.model, RNN | LSTM | GRU | Layers):
        return
    if decoder != language:
        recurrent = ("rnn", "lstm", "gru")
        fitting = ("transformer_decoder", "layers", *recurrent) if language else ("mlp", "layers", "cnn", *recurrent)
        yield hit("/model/type", fitting, model=case.spec.model.type, task=case.spec.task.type, fitting=", ".join(fitting))


def _gan_fits(case: Case) -> Iterator[Hit]:
    """Two networks with opposite aims are a task of their own."""
    task, model = case.spec.task, case.spec.model
    if not isinstance(task, Generation):
        yield hit("/task/type", ("gan",), model=model.type, task=task.type, fitting="task gan")
    elif not isinstance(model, GAN):
        yield hit("/model/type", ("gan",), model=model.type, task=task.type, fitting="gan")


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
    for at, model, _ in networks(case):
        match model:
            case MLP(dropout=p) | CNN(dropout=p) | RNN(dropout=p) | LSTM(dropout=p) | GRU(dropout=p):
                yield f"{at}/dropout", p
            case TransformerDecoder() | TransformerEncoder():
                for key in ("dropout", "attention_dropout", "embedding_dropout"):
                    yield f"{at}/{key}", getattr(model, key)
            case Layers(layers=layers):
                for pointer, layer in every(layers, f"{at}/layers"):
                    if isinstance(layer, Dropout):
                        yield f"{pointer}/p", layer.p
                    if isinstance(layer, AttentionLayer | RecurrentLayer):
                        yield f"{pointer}/dropout", layer.dropout


def scaling_needs_residuals(case: Case) -> Iterator[Hit]:
    for at, model, _ in networks(case):
        if (
            isinstance(model, HF)
            or isinstance(model.init, TorchInit)
            or model.init.residual_scaling == "none"
            or isinstance(model, Transformer)
        ):
            continue
        residual = isinstance(model, CNN) and model.block != "plain"
        layers = every(model.layers, at) if isinstance(model, Layers) else ()
        if not residual and not any(isinstance(layer, Residual) for _, layer in layers):
            yield hit(f"{at}/init/residual_scaling")


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
        "residual-scaling-needs-residuals", "R", ("/model",), scaling_needs_residuals,
        "`residual_scaling` scales residual branches, and this model has none", "set none",
    ),
)  # fmt: skip
