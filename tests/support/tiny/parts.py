"""What documents of tiny jobs are put together from."""

from typing import Any

Document = dict[str, Any]
EACH_STEP: Document = {"interval": {"steps": 1}}


def data(kind: str, dataset: str, **source: Any) -> Document:
    """A data section: the first version of one of `tests.support.tiny.files`, split three ways."""
    return {"source": {"type": kind, "dataset": f"{dataset}@1", **source}, "split": {"validation": 0.2, "test": 0.2}}


def table(**sections: Any) -> Document:
    """A classifier of numbers, one step long."""
    return {
        "task": {"type": "classification", "target": "y"},
        "model": {"type": "mlp", "hidden_sizes": [4]},
        "data": data("csv", "rows", delimiter=";"),
        "training": {"max_steps": 1, "batch_size": 8},
        "logging": EACH_STEP,
    } | sections


def text(model: Document, **sections: Any) -> Document:
    """A model of text, two steps long."""
    return {
        "task": {"type": "causal_lm"},
        "model": model,
        "data": data("text", "words") | {"sequence": {"length": 16}},
        "training": {"max_steps": 2, "batch_size": 8},
        "logging": EACH_STEP,
    } | sections


def arrays(dataset: str, model: Document, **sections: Any) -> Document:
    """A classifier of arrays, two steps long."""
    return {
        "task": {"type": "classification"},
        "model": model,
        "data": data("arrays", dataset),
        "training": {"max_steps": 2, "batch_size": 8},
    } | sections


SMALL_GPT: Document = {"type": "transformer_decoder", "num_layers": 1, "hidden_size": 16, "num_heads": 2}
