"""Sizes of published models, written out: `model: {preset: gpt2-124m}` becomes the fields below, and what stands beside it wins."""

from collections.abc import Mapping

from stoker.document.grammar import Object, leaves
from stoker.document.merge import merged, within
from stoker.document.messages import finding
from stoker.document.strict_json import JsonValue
from stoker.errors import Finding, SpecError
from stoker.i18n import Lang
from stoker.spec.job import JobSpec
from stoker.text import nearest, shown

Fields = dict[str, JsonValue]


def _gpt(layers: int, width: int, heads: int, length: int = 1024) -> Fields:
    """Radford et al. 2019, Brown et al. 2020."""
    return {
        "type": "transformer_decoder",
        "num_layers": layers,
        "hidden_size": width,
        "num_heads": heads,
        "position": {"type": "learned", "max_length": length},
        "activation": "gelu_tanh",
        "normalization": {"type": "layer", "eps": 1e-5},
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "embedding_dropout": 0.1,
    }


def _llama(layers: int, width: int, heads: int, kv_heads: int, inner: int) -> Fields:
    """Touvron et al. 2023, Zhang et al. 2024."""
    return {
        "type": "transformer_decoder",
        "num_layers": layers,
        "hidden_size": width,
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "ffn_size": inner,
        "position": {"type": "rope", "base": 10000.0},
        "activation": "silu",
        "gated_ffn": True,
        "normalization": {"type": "rms", "eps": 1e-5},
        "bias": False,
        "tie_embeddings": False,
    }


def _bert(layers: int, width: int, heads: int, *, length: int, segments: int, eps: float) -> Fields:
    """Devlin et al. 2019, Liu et al. 2019."""
    return {
        "type": "transformer_encoder",
        "num_layers": layers,
        "hidden_size": width,
        "num_heads": heads,
        "position": {"type": "learned", "max_length": length},
        "segments": segments,
        "embedding_norm": True,
        "activation": "gelu",
        "normalization": {"type": "layer", "eps": eps},
        "norm_placement": "post",
        "pooling": "first",
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "embedding_dropout": 0.1,
    }


def _resnet(block: str, blocks: tuple[int, ...]) -> Fields:
    """He et al. 2015, with the stride of a bottleneck at its middle convolution, as everybody has it since."""
    widths = (64, 128, 256, 512)
    stages = zip(widths, blocks, (1, 2, 2, 2), strict=True)
    return {
        "type": "cnn",
        "block": block,
        "stem": {"channels": 64, "kernel_size": 7, "stride": 2, "pool": True},
        "stages": [{"channels": width, "blocks": count, "stride": stride} for width, count, stride in stages],
    }


def _small_resnet(blocks: int) -> Fields:
    """For pictures of 32 x 32 (He et al. 2015, section 4.2), with convolutions where the ways around change shape."""
    return {
        "type": "cnn",
        "block": "basic",
        "stem": {"channels": 16, "kernel_size": 3, "stride": 1, "pool": False},
        "stages": [{"channels": width, "blocks": blocks, "stride": stride} for width, stride in ((16, 1), (32, 2), (64, 2))],
    }


PRESETS: Mapping[str, Fields] = {
    "gpt2-124m": _gpt(12, 768, 12),
    "gpt2-medium": _gpt(24, 1024, 16),
    "gpt2-large": _gpt(36, 1280, 20),
    "gpt2-xl": _gpt(48, 1600, 25),
    "gpt3-small": _gpt(12, 768, 12, 2048),
    "gpt3-175b": _gpt(96, 12288, 96, 2048),
    "llama-1.1b": _llama(22, 2048, 32, 4, 5632),
    "bert-base-uncased": _bert(12, 768, 12, length=512, segments=2, eps=1e-12),
    "bert-large-uncased": _bert(24, 1024, 16, length=512, segments=2, eps=1e-12),
    "roberta-base": _bert(12, 768, 12, length=514, segments=1, eps=1e-5),
    "roberta-large": _bert(24, 1024, 16, length=514, segments=1, eps=1e-5),
    "resnet18": _resnet("basic", (2, 2, 2, 2)),
    "resnet34": _resnet("basic", (3, 4, 6, 3)),
    "resnet50": _resnet("bottleneck", (3, 4, 6, 3)),
    "resnet20-cifar": _small_resnet(3),
    "resnet56-cifar": _small_resnet(9),
}
"""Vocabulary and context are those of the data. BERT's head is that of the task: `head_transform` for masked_lm, `pooler` for classes."""

MODEL = within(Object(JobSpec), {})("model")


def expanded(value: dict[str, JsonValue], lang: Lang = "en") -> tuple[dict[str, JsonValue], dict[str, str]]:
    """The document with its model's preset written out, and where each leaf that it brought comes from.

    A preset of another type than the one that is given is left to the grammar. Raises SpecError for a name that nobody knows.
    """
    model = value.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("preset"), str):
        return value, {}
    name = str(model["preset"])
    if name not in PRESETS:
        raise SpecError([_unknown(name, lang)])
    below = PRESETS[name] | _head(str(PRESETS[name]["type"]), value)
    above: JsonValue = {key: inner for key, inner in model.items() if key != "preset"}
    if model.get("type", below["type"]) != below["type"]:
        return value, {}
    given = {pointer for pointer, _ in leaves(above, "/model")}
    made = merged(below, above, MODEL)
    brought = {pointer: f"preset:{name}" for pointer, _ in leaves(made, "/model") if pointer not in given}
    return {**value, "model": made}, brought


def _head(kind: str, value: dict[str, JsonValue]) -> Fields:
    """BERT's own head for what is to be learned."""
    if kind != "transformer_encoder":
        return {}
    task = value.get("task")
    filled = isinstance(task, dict) and task.get("type") == "masked_lm"
    return {"head_transform": True} if filled else {"pooler": True}


def _unknown(name: str, lang: Lang) -> Finding:
    choices, guess = tuple(PRESETS), nearest(name, PRESETS)
    holes = {"path": "model.preset", "value": shown(name)}
    if guess is not None:
        return finding("misspelled-value", "/model/preset", lang, allowed=choices, guess=guess, **holes)
    return finding("not-one-of", "/model/preset", lang, allowed=choices, choices=", ".join(choices), **holes)
