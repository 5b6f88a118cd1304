"""Rules of `model` for transformers: heads, positions, and strategies that cut them."""

from collections.abc import Iterator

from stoker.spec.data import reads_text
from stoker.spec.distributed import Cuttable, Distributed
from stoker.spec.model.parts import BatchNorm
from stoker.spec.model.transformer import (
    AlibiPosition,
    LearnedPosition,
    NtkScaling,
    RotaryPosition,
    SinusoidalPosition,
    Transformer,
)
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule


@rule(
    "heads-divide",
    reads=("/model",),
    message="{heads} heads do not divide hidden_size {size}",
    hint="set hidden_size to {nearest}, change num_heads, or set key_dim",
)
def heads_divide(case: Case) -> Iterator[Hit]:
    model = case.spec.model
    if isinstance(model, Transformer) and model.key_dim is None:
        down = model.hidden_size // model.num_heads * model.num_heads
        nearest = down + model.num_heads if down == 0 or model.hidden_size - down > model.num_heads / 2 else down
        yield hit("/model/num_heads", heads=model.num_heads, size=model.hidden_size, nearest=nearest)


@rule(
    "kv-heads-divide",
    reads=("/model",),
    message="{kv_heads} key-value heads do not divide {heads} heads",
    hint="set num_kv_heads to {nearest}",
)
def kv_heads_divide(case: Case) -> Iterator[Hit]:
    model = case.spec.model
    if isinstance(model, Transformer) and model.num_kv_heads is not None and model.num_heads % model.num_kv_heads:
        below = next(n for n in range(min(model.num_kv_heads, model.num_heads), 0, -1) if model.num_heads % n == 0)
        yield hit("/model/num_kv_heads", kv_heads=model.num_kv_heads, heads=model.num_heads, nearest=below)


@rule(
    "rope-dim",
    reads=("/model",),
    message="rope turns {dim} dimensions, which must be an even number of at most {width}",
    hint="set `model.position.dim`",
)
def rotary_dim(case: Case) -> Iterator[Hit]:
    model = case.spec.model
    if not isinstance(model, Transformer) or not isinstance(model.position, RotaryPosition):
        return
    dim, width = model.position.dim, model.key_dim
    if dim is not None and (dim % 2 or (width is not None and dim > width)):
        yield hit("/model/position/dim", dim=dim, width=width or "key_dim")


@rule(
    "sinusoidal-width",
    reads=("/model",),
    message="sines and cosines come in pairs, and hidden_size {size} is odd",
    hint="set hidden_size to {nearest}",
)
def sinusoidal_width(case: Case) -> Iterator[Hit]:
    model = case.spec.model
    if isinstance(model, Transformer) and isinstance(model.position, SinusoidalPosition) and model.hidden_size % 2:
        yield hit("/model/hidden_size", size=model.hidden_size, nearest=model.hidden_size + 1)


@rule(
    "position-table",
    reads=("/model/position", "/data"),
    message="the table has {rows} positions, and sequences have {length}",
    hint="set `data.sequence.length` to {rows} or less; or `model.position.max_length` to {length} or more, or leave it out",
)
def table_too_short(case: Case) -> Iterator[Hit]:
    model, shape = case.transformer, case.problem.input_shape
    if model is None or shape is None or not isinstance(model.position, LearnedPosition):
        return
    rows = model.position.max_length
    if rows is not None and rows < shape[0]:
        yield hit("/model/position/max_length", rows=rows, length=shape[0])


@rule(
    "ntk-dimensions",
    reads=("/model",),
    message="ntk stretches all rotations but the fastest, and there is one alone",
    hint="rotate 4 dimensions or more, or set `scaling: {{type: linear}}`",
)
def scaling_needs_dimensions(case: Case) -> Iterator[Hit]:
    model = case.transformer
    if model is None or not isinstance(model.position, RotaryPosition) or not isinstance(model.position.scaling, NtkScaling):
        return
    if (model.position.dim or model.key_width) < 4:
        yield hit("/model/position/scaling")


@rule(
    "embedding-of-numbers",
    reads=("/model", "/data/source"),
    message="numbers have no token embedding, and embedding_size differs from hidden_size",
    hint="remove `model.embedding_size`",
)
def embedding_of_numbers(case: Case) -> Iterator[Hit]:
    model = case.transformer
    if model is not None and not reads_text(case.spec.data.source) and model.embedded != model.hidden_size:
        yield hit("/model/embedding_size")


@rule(
    "transformer-cut",
    reads=("/model", "/distributed"),
    message="`model.{name}` does not work under {strategy} as it is set",
    hint="leave it at its default, or remove `distributed.{strategy}`",
)
def cut_models(case: Case) -> Iterator[Hit]:
    """Fields that a strategy which cuts models or sequences has no answer to."""
    model, strategy = case.transformer, cut_by(case.spec.distributed)
    if model is None or strategy is None:
        return
    alibi, batch = isinstance(model.position, AlibiPosition), isinstance(model.normalization, BatchNorm)
    apart = model.embedded != model.hidden_size
    troubles = {
        "normalization": batch,
        "position": alibi and strategy != "pipeline_parallel",
        "window": model.window is not None and strategy == "context_parallel",
        "attention_softcap": model.attention_softcap is not None and strategy == "context_parallel",
        "value_dim": model.value_width != model.key_width and strategy == "context_parallel",
        "embedding_size": apart and strategy == "tensor_parallel",
    }
    for name, trouble in troubles.items():
        if trouble:
            yield hit(f"/model/{name}", name=name, strategy=strategy)


def cut_by(spec: Distributed) -> str | None:
    """Which strategy cuts the model or its sequences."""
    if not isinstance(spec, Cuttable):
        return None
    cuts = {"tensor_parallel": spec.tensor_degree, "context_parallel": spec.context_degree}
    if (name := next((name for name, degree in cuts.items() if degree > 1), None)) is not None:
        return name
    return "pipeline_parallel" if getattr(spec, "pipeline_parallel", None) is not None else None
