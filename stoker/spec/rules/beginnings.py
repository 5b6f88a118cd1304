"""What starting from given weights, and learning only some of them, goes with."""

from collections.abc import Iterator

from stoker.spec.derived.hugging_face import trunk_of
from stoker.spec.distributed import DDP, FSDP, Single
from stoker.spec.initialization import Cold, Pretrained
from stoker.spec.model import HF, Transformer
from stoker.spec.rules._rule import Case, Hit, Rule, hit
from stoker.spec.task.multi_task import MultiTask

START, TUNE = "/initialization/start", "/initialization/finetune"


def one_beginning(case: Case) -> Iterator[Hit]:
    if case.spec.checkpoint.resume_from is not None and not isinstance(case.spec.initialization.start, Cold):
        yield hit(START, type=case.spec.initialization.start.type)


def names_of_transformers(case: Case) -> Iterator[Hit]:
    start, model = case.spec.initialization.start, case.spec.model
    if not isinstance(start, Pretrained) or start.names != "huggingface" or isinstance(model, HF):
        return
    if not isinstance(model, Transformer) or trunk_of(model) is None:
        yield hit(f"{START}/names", ("stoker",), model=model.type)


def tuned_where(case: Case) -> Iterator[Hit]:
    how = case.spec.distributed
    if case.spec.initialization.finetune is None:
        return
    if not isinstance(how, Single | DDP | FSDP):
        yield hit("/distributed/strategy", ("single", "ddp", "fsdp"), strategy=how.strategy)
        return
    for key in ("tensor_parallel", "context_parallel", "pipeline_parallel"):
        if getattr(how, key, None) is not None:
            yield hit(f"/distributed/{key}", strategy=key)


def tuned_one_task(case: Case) -> Iterator[Hit]:
    if case.spec.initialization.finetune is not None and isinstance(case.spec.task, MultiTask):
        yield hit(TUNE)


def adapter_freezes(case: Case) -> Iterator[Hit]:
    tune = case.spec.initialization.finetune
    if tune is None or tune.adapter is None:
        return
    for key in ("freeze", "unfreeze_at"):
        if getattr(tune, key):
            yield hit(f"{TUNE}/{key}", key=key)


def adapter_shares(case: Case) -> Iterator[Hit]:
    """Two adapters beside one matrix would make two of it when they are merged."""
    tune = case.spec.initialization.finetune
    if tune is not None and tune.adapter is not None and case.spec.model.sharing:
        yield hit(f"{TUNE}/adapter")


def unfrozen_in_seconds(case: Case) -> Iterator[Hit]:
    tune = case.spec.initialization.finetune
    for index, later in enumerate(() if tune is None else tune.unfreeze_at):
        if later.at.seconds is not None:
            yield hit(f"{TUNE}/unfreeze_at/{index}/at/seconds")


def tuned_from_nothing(case: Case) -> Iterator[Hit]:
    tune, begins = case.spec.initialization.finetune, case.spec.initialization.start
    if tune is None or not isinstance(begins, Cold) or case.spec.checkpoint.resume_from is not None:
        return
    if tune.freeze or tune.adapter is not None:
        yield hit(TUNE)


BEGINNING_RULES = (
    Rule(
        "one-beginning", "R", (START, "/checkpoint/resume_from"), one_beginning,
        "a run that goes on from a checkpoint has its weights, and start: {type} brings others",
        "remove `checkpoint.resume_from`, or set `initialization.start` to cold",
    ),
    Rule(
        "names-of-transformers", "R", (START, "/model"), names_of_transformers,
        "transformers has no architecture like this {model}, so that no weights have its names", "set names: stoker",
    ),
    Rule(
        "finetune-strategy", "R", (TUNE, "/distributed"), tuned_where,
        "{strategy} moves every weight alike, and fine-tuning keeps some as they are", "use strategy single, ddp or fsdp, without parts of a model",
    ),
    Rule(
        "finetune-one-task", "R", (TUNE, "/task"), tuned_one_task,
        "fine-tuning names the weights of one model, and a model of several tasks is put together later", "remove `initialization.finetune`",
    ),
    Rule(
        "adapter-freezes", "R", (TUNE,), adapter_freezes,
        "with an adapter every weight is frozen but those in adapter.train, and {key} says nothing more", "remove {key}; name what learns in adapter.train",
    ),
    Rule(
        "adapter-shares", "R", (TUNE, "/model/sharing"), adapter_shares,
        "parts of the model share weights, and an adapter beside one of them would part them", "remove `model.sharing`, or fine-tune without an adapter",
    ),
    Rule(
        "unfreeze-in-seconds", "R", (TUNE,), unfrozen_in_seconds,
        "when weights begin to learn must not hang on the clock: the run could not be repeated", "count in steps or epochs",
    ),
    Rule(
        "finetune-from-nothing", "W", (TUNE, START), tuned_from_nothing,
        "weights that were only drawn are kept as they are, and nothing was learned that is worth keeping", "set `initialization.start` to warm or pretrained",
    ),
)  # fmt: skip
