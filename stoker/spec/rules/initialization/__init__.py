"""Rules of `initialization.start`."""

from collections.abc import Iterator

from stoker.spec.derived.hugging_face import trunk_of
from stoker.spec.initialization import Cold, Pretrained
from stoker.spec.model import HF, Transformer
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule

START, TUNE = "/initialization/start", "/initialization/finetune"


@rule(
    "one-beginning",
    reads=("/initialization/start", "/checkpoint/resume_from"),
    message="a run that goes on from a checkpoint has its weights, and start: {type} brings others",
    hint="remove `checkpoint.resume_from`, or set `initialization.start` to cold",
)
def one_beginning(case: Case) -> Iterator[Hit]:
    if case.spec.checkpoint.resume_from is not None and not isinstance(case.spec.initialization.start, Cold):
        yield hit(START, type=case.spec.initialization.start.type)


@rule(
    "names-of-transformers",
    reads=("/initialization/start", "/model"),
    message="transformers has no architecture like this {model}, so that no weights have its names",
    hint="set names: stoker",
)
def names_of_transformers(case: Case) -> Iterator[Hit]:
    start, model = case.spec.initialization.start, case.spec.model
    if not isinstance(start, Pretrained) or start.names != "huggingface" or isinstance(model, HF):
        return
    if not isinstance(model, Transformer) or trunk_of(model) is None:
        yield hit(f"{START}/names", ("stoker",), model=model.type)
