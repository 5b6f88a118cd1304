"""What can be saved, and how."""

from collections.abc import Iterator

from stoker.spec.data import Text
from stoker.spec.derived.hugging_face import nearest
from stoker.spec.model import Transformer
from stoker.spec.rules._rule import Case, Hit, Rule, hit


def exceptions_of_one(case: Case) -> Iterator[Hit]:
    ranks = case.spec.distributed.world_size
    if case.spec.checkpoint.on_exception and ranks > 1:
        yield hit("/checkpoint/on_exception", ranks=ranks)


def forks_need_host_memory(case: Case) -> Iterator[Hit]:
    if case.spec.checkpoint.background == "fork" and case.spec.resources.device == "cuda":
        yield hit("/checkpoint/background", ("copy", "off"))


def only_decoders_are_exported(case: Case) -> Iterator[Hit]:
    model = case.spec.model
    if "huggingface" not in case.spec.checkpoint.export:
        return
    if not isinstance(model, Transformer) or not isinstance(case.spec.data.source, Text):
        yield hit("/checkpoint/export", ("safetensors",), model=model.type)


def known_decoders_are_exported(case: Case) -> Iterator[Hit]:
    model = case.spec.model
    if "huggingface" in case.spec.checkpoint.export and isinstance(model, Transformer):
        architecture, fields = nearest(model)
        if fields:
            yield hit("/checkpoint/export", ("safetensors",), architecture=architecture, fields="; ".join(fields))


CHECKPOINT_RULES = (
    Rule(
        "huggingface-decoders", "R", ("/checkpoint/export", "/model"), only_decoders_are_exported,
        "transformers computes decoders and encoders of text, and this is another {model}",
        "remove huggingface from `checkpoint.export`; safetensors takes any model",
    ),
    Rule(
        "huggingface-architecture", "R", ("/checkpoint/export", "/model"), known_decoders_are_exported,
        "no architecture of transformers computes this model; {architecture} is nearest and wants {fields}",
        "change those fields of `model`, or remove huggingface from `checkpoint.export`",
    ),
    Rule(
        "on-exception-one-process", "R", ("/checkpoint/on_exception", "/distributed"), exceptions_of_one,
        "on_exception saves what one process has, and there are {ranks} ranks: when one raises, the others cannot say what they hold",
        "remove on_exception, or set strategy: single",
    ),
    Rule(
        "fork-needs-host-memory", "R", ("/checkpoint/background", "/resources/device"), forks_need_host_memory,
        "a forked process cannot read the memory of a GPU, and device is cuda", "set background: copy, or leave it out",
    ),
)  # fmt: skip
