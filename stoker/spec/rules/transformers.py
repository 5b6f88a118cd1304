"""What transformers ask of their positions, windows and norms, and of the strategies that cut them."""

from collections.abc import Iterator

from stoker.spec.activation_checkpointing import KeepAll
from stoker.spec.data import reads_text
from stoker.spec.distributed import Cuttable, Distributed
from stoker.spec.model import Transformer, TransformerEncoder
from stoker.spec.model.parts import BatchNorm
from stoker.spec.model.transformer import AlibiPosition, LearnedPosition, NtkScaling, RotaryPosition
from stoker.spec.rules._rule import Case, Hit, Rule, hit
from stoker.spec.task import CausalLM, MaskedLM


def _model(case: Case) -> Transformer | None:
    return case.spec.model if isinstance(case.spec.model, Transformer) else None


def table_too_short(case: Case) -> Iterator[Hit]:
    model, shape = _model(case), case.problem.input_shape
    if model is None or shape is None or not isinstance(model.position, LearnedPosition):
        return
    rows = model.position.max_length
    if rows is not None and rows < shape[0]:
        yield hit("/model/position/max_length", rows=rows, length=shape[0])


def scaling_needs_dimensions(case: Case) -> Iterator[Hit]:
    model = _model(case)
    if model is None or not isinstance(model.position, RotaryPosition) or not isinstance(model.position.scaling, NtkScaling):
        return
    if (model.position.dim or model.key_width) < 4:
        yield hit("/model/position/scaling")


def shares_beyond_all(case: Case) -> Iterator[Hit]:
    task = case.spec.task
    if isinstance(task, MaskedLM) and task.masked_share + task.random_share > 1 + 1e-9:
        yield hit("/task/masked_share", total=f"{task.masked_share + task.random_share:g}")


def encoder_inputs(case: Case) -> Iterator[Hit]:
    """Text, or sequences of numbers."""
    shape = case.problem.input_shape
    numbers = isinstance(case.spec.model, TransformerEncoder) and not reads_text(case.spec.data.source)
    if numbers and shape is not None and len(shape) != 2:
        yield hit("/model/type", ("mlp", "layers"), given=f"({', '.join(map(str, shape))})")


def unused_by_head(case: Case) -> Iterator[Hit]:
    """Fields of the head that the task does not have."""
    model = case.spec.model
    if not isinstance(model, TransformerEncoder):
        return
    filled = isinstance(case.spec.task, MaskedLM)
    for name, used, what in (
        ("pooler", not filled, "masked_lm has no pooling"),
        ("head_transform", filled, "it is of the vocabulary head of masked_lm"),
    ):
        if getattr(model, name) and not used:
            yield hit(f"/model/{name}", name=name, what=what)


def embedding_of_numbers(case: Case) -> Iterator[Hit]:
    model = _model(case)
    if model is not None and not reads_text(case.spec.data.source) and model.embedded != model.hidden_size:
        yield hit("/model/embedding_size")


def batch_norm_sees_ahead(case: Case) -> Iterator[Hit]:
    model = _model(case)
    if model is not None and isinstance(model.normalization, BatchNorm) and isinstance(case.spec.task, CausalLM):
        yield hit("/model/normalization")


def batch_norm_twice(case: Case) -> Iterator[Hit]:
    model = _model(case)
    if model is None or not isinstance(model.normalization, BatchNorm):
        return
    if not isinstance(case.spec.activation_checkpointing, KeepAll):
        yield hit("/activation_checkpointing/type")


def cut_by(spec: Distributed) -> str | None:
    """Which strategy cuts the model or its sequences."""
    if not isinstance(spec, Cuttable):
        return None
    cuts = {"tensor_parallel": spec.tensor_degree, "context_parallel": spec.context_degree}
    if (name := next((name for name, degree in cuts.items() if degree > 1), None)) is not None:
        return name
    return "pipeline_parallel" if getattr(spec, "pipeline_parallel", None) is not None else None


def cut_models(case: Case) -> Iterator[Hit]:
    """Fields that a strategy which cuts models or sequences has no answer to."""
    model, strategy = _model(case), cut_by(case.spec.distributed)
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


TRANSFORMER_RULES = (
    Rule(
        "position-table", "R", ("/model/position", "/data"), table_too_short,
        "the table has {rows} positions, and sequences have {length}",
        "set `data.sequence.length` to {rows} or less; or `model.position.max_length` to {length} or more, or leave it out",
    ),
    Rule(
        "ntk-dimensions", "R", ("/model",), scaling_needs_dimensions,
        "ntk stretches all rotations but the fastest, and there is one alone", "rotate 4 dimensions or more, or set `scaling: {{type: linear}}`",
    ),
    Rule(
        "mask-shares", "R", ("/task",), shares_beyond_all,
        "masked_share and random_share add up to {total}, more than all", "lower one of them",
    ),
    Rule(
        "encoder-inputs", "R", ("/model/type", "/data"), encoder_inputs,
        "a transformer_encoder reads text or sequences of (steps, features), and samples are {given}", "use mlp or layers",
    ),
    Rule(
        "encoder-head", "R", ("/model", "/task/type"), unused_by_head,
        "`model.{name}` has no effect here: {what}", "remove it",
    ),
    Rule(
        "embedding-of-numbers", "R", ("/model", "/data/source"), embedding_of_numbers,
        "numbers have no token embedding, and embedding_size differs from hidden_size", "remove `model.embedding_size`",
    ),
    Rule(
        "batch-norm-sees-ahead", "W", ("/model/normalization", "/task/type"), batch_norm_sees_ahead,
        "batch normalisation of tokens lets each see later ones while the model learns", "use layer or rms",
    ),
    Rule(
        "batch-norm-computed-twice", "R", ("/model/normalization", "/activation_checkpointing"), batch_norm_twice,
        "blocks that are computed again would count their batch statistics twice", "set type: none, or use layer or rms",
    ),
    Rule(
        "transformer-cut", "R", ("/model", "/distributed"), cut_models,
        "`model.{name}` does not work under {strategy} as it is set", "leave it at its default, or remove `distributed.{strategy}`",
    ),
)  # fmt: skip
