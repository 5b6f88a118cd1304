"""Jobs that two processes train together, a strategy each, and models that are all trained by one of them."""

from typing import Any

from tests.support.tiny.parts import SMALL_GPT, Document, arrays, data, table, text


def _two(strategy: str, **more: Any) -> Document:
    return {"strategy": strategy, "processes_per_node": 2} | more


RANKS: dict[str, Document] = {
    "halved": arrays("grids", {"type": "cnn"}, distributed=_two("ddp", communication_hook={"type": "bf16"})),
    "powersgd": text(
        {"type": "lstm", "hidden_size": 8, "proj_size": 4, "forget_bias": 1.0, "num_layers": 2, "dropout": 0.1},
        distributed=_two("ddp", communication_hook={"type": "powersgd"}),
    ),
    "fsdp": text(
        SMALL_GPT | {"type": "transformer_encoder", "segments": 2, "embedding_norm": True, "head_transform": True},
        task={"type": "masked_lm"},
        optimizer={"type": "lion"},
        distributed=_two("fsdp"),
    ),
    "local_sgd": {
        "task": {"type": "classification", "target": "y"},
        "model": {"type": "rnn", "hidden_size": 8, "num_layers": 2, "dropout": 0.1},
        "data": data("csv", "reviews", text="review")
        | {"sequence": {"length": 8}, "tokenizer": {"type": "file", "source": "published@1", "vocab_size": 9}},
        "training": {"max_steps": 1, "batch_size": 8},
        "distributed": _two("local_sgd"),
    },
    "tensor": text(
        SMALL_GPT | {"position": {"type": "sinusoidal"}, "num_layers": 2, "tie_embeddings": False},
        data=data("text", "words") | {"tokenizer": {"type": "char"}, "sequence": {"length": 16}},
        schedule={"type": "wsd", "decay_ratio": 0.5},
        training={"max_steps": 4, "batch_size": 8},
        activation_checkpointing={"type": "selective", "every": 1},
        distributed=_two("ddp", tensor_parallel={"degree": 2}),
    ),
    "pipeline": text(
        SMALL_GPT | {"position": {"type": "rope", "scaling": {"type": "linear"}}, "num_layers": 2, "tie_embeddings": False},
        data=data("text", "words") | {"tokenizer": {"type": "bpe", "vocab_size": 270}, "sequence": {"length": 8}},
        distributed=_two("ddp", pipeline_parallel={"degree": 2, "microbatches": 2}),
    ),
    "context": text(SMALL_GPT, distributed=_two("ddp", context_parallel={"degree": 2})),
    "auto": arrays(
        "sequences",
        SMALL_GPT | {"type": "transformer_encoder", "pooling": "first", "pooler": True},
        distributed=_two("auto"),
    ),
    **{
        f"servers_{mode}": table(distributed=_two("parameter_server", consistency={"mode": mode}))
        for mode in ("sync", "async", "bounded_staleness")
    },
    "horovod": table(distributed={"strategy": "horovod", "processes_per_node": 1}),  # of one rank, which needs no Horovod
}
