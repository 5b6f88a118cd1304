"""Small documents that resolve, and the facts of their data sets."""

from copy import deepcopy
from typing import Any

from stoker.facts import ArrayFacts, ArrayFile, ColumnFacts, DatasetFacts, ImageFacts, TableFacts, TextFacts

Json = dict[str, Any]


def facts(content: Any, name: str = "d", version: int = 3) -> DatasetFacts:
    return DatasetFacts(name=name, version=version, digest="0" * 64, bytes=1000, content=content)


def column(
    name: str, kind: Any = "number", nulls: int = 0, distinct: int | None = 50, counts: dict[str, int] | None = None
) -> ColumnFacts:
    return ColumnFacts(name=name, kind=kind, nulls=nulls, distinct=distinct, counts=counts)


TARGET = column("t", "integer", distinct=3, counts={"0": 60, "1": 50, "2": 40})
TABLE = facts(TableFacts(format="csv", rows=150, columns=(column("a"), column("b"), TARGET), delimiter=","))
TEXT = facts(TextFacts(bytes=10_000, characters=9_500, distinct_characters=60))
PICTURES = facts(ImageFacts(counts={"cat": 80, "dog": 70}, height=16, width=16))
ARRAYS = facts(
    ArrayFacts(
        files={
            "x.npy": ArrayFile(dtype="<f4", shape=(150, 3, 8, 8)),
            "y.npy": ArrayFile(dtype="<i8", shape=(150,), distinct=5, counts={str(i): 30 for i in range(5)}),
        }
    )
)
NUMBERS = facts(
    ArrayFacts(files={"x.npy": ArrayFile(dtype="<f4", shape=(150, 8)), "y.npy": ArrayFile(dtype="<f4", shape=(150, 2))})
)

TABLE_JOB: Json = {
    "task": {"type": "classification", "target": "t"},
    "model": {"type": "mlp"},
    "data": {"source": {"type": "csv", "dataset": "d"}},
    "training": {"epochs": 5},
}
REGRESSION_JOB: Json = {
    "task": {"type": "regression", "target": "a"},
    "model": {"type": "mlp"},
    "data": {"source": {"type": "csv", "dataset": "d"}},
    "training": {"epochs": 5},
}
TEXT_JOB: Json = {
    "task": {"type": "causal_lm"},
    "model": {"type": "transformer_decoder", "num_layers": 2, "hidden_size": 32, "num_heads": 4},
    "data": {"source": {"type": "text", "dataset": "d"}, "sequence": {"length": 16}},
    "training": {"max_steps": 100},
}
STACK_JOB: Json = {
    "task": {"type": "classification"},
    "model": {
        "type": "layers",
        "layers": [
            {"type": "conv", "channels": 8, "padding": 1},
            {"type": "pool"},
            {"type": "flatten"},
            {"type": "linear", "units": 5},
        ],
    },
    "data": {"source": {"type": "arrays", "dataset": "d"}},
    "training": {"epochs": 5},
}
PICTURE_JOB: Json = {
    "task": {"type": "classification"},
    "model": {"type": "mlp"},
    "data": {"source": {"type": "image_folder", "dataset": "d"}},
    "training": {"epochs": 5},
}
NUMBERS_JOB: Json = {
    "task": {"type": "regression"},
    "model": {"type": "mlp"},
    "data": {"source": {"type": "arrays", "dataset": "d"}},
    "training": {"epochs": 5},
}

REVIEWS = facts(
    TableFacts(
        format="csv",
        rows=150,
        columns=(column("review", "string", distinct=150), column("stars"), TARGET),
        delimiter=",",
    )
)
REVIEWS_JOB: Json = {
    "task": {"type": "classification", "target": "t"},
    "model": {"type": "transformer_encoder", "num_layers": 2, "hidden_size": 32, "num_heads": 4},
    "data": {"source": {"type": "csv", "dataset": "d", "text": "review"}, "sequence": {"length": 16}},
    "training": {"epochs": 5},
}

GAN_JOB: Json = {
    "task": {"type": "gan"},
    "model": {
        "type": "gan",
        "latent_dim": 8,
        "generator": {"type": "layers", "layers": [{"type": "linear", "units": 192}, {"type": "reshape", "shape": [3, 8, 8]}]},
        "discriminator": {
            "type": "layers",
            "layers": [
                {"type": "conv", "channels": 8, "padding": 1},
                {"type": "pool", "kind": "global_avg"},
                {"type": "linear", "units": 1},
            ],
        },
    },
    "data": {"source": {"type": "arrays", "dataset": "d"}},
    "training": {"epochs": 5},
}

JOBS: dict[str, tuple[Json, DatasetFacts]] = {
    "table": (TABLE_JOB, TABLE),
    "regression": (REGRESSION_JOB, TABLE),
    "text": (TEXT_JOB, TEXT),
    "stack": (STACK_JOB, ARRAYS),
    "pictures": (PICTURE_JOB, PICTURES),
    "numbers": (NUMBERS_JOB, NUMBERS),
    "reviews": (REVIEWS_JOB, REVIEWS),
    "gan": (GAN_JOB, ARRAYS),
}


def changed(job: Json, changes: Json) -> Json:
    """A copy with values set by dotted path; None as a value removes nothing, it is written."""
    made = deepcopy(job)
    for path, value in changes.items():
        *above, last = path.split(".")
        at = made
        for step in above:
            at = at[int(step)] if isinstance(at, list) else at.setdefault(step, {})
        if isinstance(at, list):
            at[int(last)] = value
        else:
            at[last] = value
    return made
