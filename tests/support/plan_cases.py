"""Specs and facts for tests of the plan: small ones by hand, and any by hypothesis."""

import json
from typing import Any, get_args

from hypothesis import strategies as st

from stoker.facts import ArrayFacts, ArrayFile, ColumnFacts, DatasetFacts, ImageFacts, TableFacts, TextFacts
from stoker.spec import JobSpec
from stoker.spec.derived.automatic import completed
from stoker.spec.model.parts import Activation
from worker.trainer.model.lstm_format import has_bfloat16_lstm

Json = dict[str, Any]

ACTIVATIONS: list[str] = list(get_args(Activation))


def job(**sections: Any) -> JobSpec:
    """A spec from its sections as plain values, as a file would hold them."""
    return JobSpec.model_validate_json(json.dumps(sections))


def facts(content: TableFacts | TextFacts | ImageFacts | ArrayFacts) -> DatasetFacts:
    return DatasetFacts(name="set", version=1, digest="0" * 64, bytes=1000, content=content)


def resolved(spec: JobSpec, content: DatasetFacts) -> JobSpec:
    """With every automatic field filled in, as a job is stored."""
    return completed(spec, content)


def table(rows: int, features: int) -> DatasetFacts:
    """Number columns x0, x1 … and an integer column y of at most ten values."""
    columns = [ColumnFacts(name=f"x{i}", kind="number") for i in range(features)]
    target = ColumnFacts(name="y", kind="integer", distinct=10, counts={str(i): rows // 10 for i in range(10)})
    return facts(TableFacts(format="csv", rows=rows, columns=(*columns, target)))


def text(tokens: int, distinct: int = 64) -> DatasetFacts:
    return facts(TextFacts(bytes=tokens, characters=tokens, distinct_characters=distinct))


def arrays(rows: int, *shape: int, classes: int = 10) -> DatasetFacts:
    targets = ArrayFile(dtype="<i8", shape=(rows,), distinct=classes, counts={str(i): rows // classes for i in range(classes)})
    return facts(ArrayFacts(files={"x.npy": ArrayFile(dtype="<f4", shape=(rows, *shape)), "y.npy": targets}))


def classifier(model: Json, **more: Any) -> JobSpec:
    """Ten classes from a table `set`."""
    sections: Json = {
        "task": {"type": "classification", "num_classes": 10, "target": "y"},
        "model": model,
        "data": {"source": {"type": "csv", "dataset": "set@1"}},
        "loss": {"type": "cross_entropy"},
        "training": {"epochs": 1, "batch_size": 8},
    }
    return job(**(sections | more))


def pictures(model: Json, **more: Any) -> JobSpec:
    """Ten classes from arrays `set`."""
    return classifier(
        model,
        **(
            {"task": {"type": "classification", "num_classes": 10}, "data": {"source": {"type": "arrays", "dataset": "set@1"}}}
            | more
        ),
    )


def language(model: Json, length: int = 16, **more: Any) -> JobSpec:
    """Bytes of a text `set`."""
    sections: Json = {
        "task": {"type": "causal_lm"},
        "model": {"type": "transformer_decoder"} | model,
        "data": {
            "source": {"type": "text", "dataset": "set@1"},
            "tokenizer": {"type": "byte"},
            "sequence": {"length": length},
            "split": {"strategy": "contiguous"},
        },
        "loss": {"type": "cross_entropy"},
        "training": {"epochs": 1, "batch_size": 8},
    }
    return job(**(sections | more))


def _norms(kinds: list[str]) -> st.SearchStrategy[Json | None]:
    affine = st.fixed_dictionaries({"type": st.just("batch"), "affine": st.booleans(), "track_running_stats": st.booleans()})
    layer = st.fixed_dictionaries({"type": st.just("layer"), "bias": st.booleans()})
    known: dict[str, st.SearchStrategy[Any]] = {
        "none": st.none(),
        "batch": affine,
        "layer": layer,
        "rms": st.just({"type": "rms"}),
    }
    return st.one_of(*(known[kind] for kind in kinds))


def mlps() -> st.SearchStrategy[Json]:
    return st.fixed_dictionaries(
        {
            "type": st.just("mlp"),
            "hidden_sizes": st.lists(st.integers(1, 40), max_size=4),
            "activation": st.sampled_from(ACTIVATIONS),
            "normalization": _norms(["none", "batch", "layer", "rms"]),
            "dropout": st.sampled_from([0.0, 0.25]),
            "bias": st.booleans(),
        }
    )


@st.composite
def decoders(draw: st.DrawFn) -> Json:
    kv_heads, groups = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    heads, head_width = kv_heads * groups, 2 * draw(st.integers(1, 6))
    positions = [{"type": "learned"}, {"type": "sinusoidal"}, {"type": "rope"}, {"type": "rope", "dim": 2}, {"type": "alibi"}]
    wide = draw(st.booleans())
    return {
        "type": "transformer_decoder",
        "embedding_size": draw(st.sampled_from([None, None, 14])),
        "value_dim": draw(st.sampled_from([None, None, 3])),
        "window": draw(st.sampled_from([None, None, 5])),
        "attention_softcap": draw(st.sampled_from([None, None, 4.0])),
        "num_layers": draw(st.integers(1, 12)),
        "hidden_size": 2 * draw(st.integers(2, 20)) if wide else heads * head_width,
        "key_dim": head_width if wide else draw(st.sampled_from([None, head_width])),
        "ffn_size": draw(st.sampled_from([None, 1, 30])),
        "num_heads": heads,
        "num_kv_heads": draw(st.sampled_from([None, kv_heads])),
        "qk_norm": draw(st.booleans()),
        "position": draw(st.sampled_from(positions)),
        "activation": draw(st.sampled_from(ACTIVATIONS)),
        "gated_ffn": draw(st.booleans()),
        "normalization": draw(_norms(["layer", "rms", "batch"])),
        "norm_placement": draw(st.sampled_from(["pre", "post"])),
        "dropout": draw(st.sampled_from([0.0, 0.25])),
        "attention_dropout": draw(st.sampled_from([0.0, 0.25])),
        "embedding_dropout": draw(st.sampled_from([0.0, 0.25])),
        "bias": draw(st.booleans()),
        "tie_embeddings": draw(st.booleans()),
    }


@st.composite
def encoders(draw: st.DrawFn) -> Json:
    return draw(decoders()) | {
        "type": "transformer_encoder",
        "segments": draw(st.sampled_from([0, 2])),
        "embedding_norm": draw(st.booleans()),
        "head_transform": draw(st.booleans()),
    }


@st.composite
def pictures_of_layers(draw: st.DrawFn) -> Json:
    """Convolutions over 3 x 12 x 12 pictures that keep their size, a residual stack, one pool, then a head of ten."""
    channels = 4 * draw(st.integers(1, 4))
    kernel = draw(st.sampled_from([1, 3, 5, [3, 5]]))
    padding = [side // 2 for side in kernel] if isinstance(kernel, list) else kernel // 2
    inside = {
        "type": "conv",
        "channels": channels,
        "kernel_size": kernel,
        "padding": padding,
        "groups": draw(st.sampled_from([1, 2, 4])),
    }
    norm = {"type": "norm", "kind": draw(st.sampled_from(["batch", "layer", "rms"]))}
    activation = {"type": "activation", "kind": draw(st.sampled_from(ACTIVATIONS))}
    stack = [
        inside | {"bias": draw(st.booleans())},
        norm,
        activation,
        {"type": "dropout", "p": draw(st.sampled_from([0.0, 0.25]))},
    ]
    first = {
        "type": "conv",
        "channels": channels,
        "stride": draw(st.sampled_from([1, 2])),
        "dilation": draw(st.sampled_from([1, 2])),
    }
    pool = {"type": "pool", "kind": draw(st.sampled_from(["max", "avg"])), "kernel_size": 2}
    end = draw(st.sampled_from([[{"type": "flatten"}], [{"type": "pool", "kind": "global_avg"}]]))
    head = [{"type": "linear", "units": 10, "bias": draw(st.booleans())}]
    residual = {"type": "residual", "layers": stack}
    return {"type": "layers", "layers": [first, norm, activation, residual, residual, pool, *end, *head]}


def as_computed(spec: JobSpec) -> JobSpec:
    """The spec of what this CPU computes: an LSTM under bfloat16 autocast is one in fp32 where the CPU has no other."""
    if spec.precision.mode != "bf16_mixed" or "lstm" not in spec.model.model_dump_json() or has_bfloat16_lstm():
        return spec
    return spec.model_copy(update={"precision": spec.precision.model_copy(update={"mode": "fp32"})})
