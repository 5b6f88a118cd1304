"""Rules of `initialization.finetune`."""

from collections.abc import Iterator

from stoker.spec.initialization import Cold
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.task.multi_task import MultiTask

START, TUNE = "/initialization/start", "/initialization/finetune"


@rule(
    "finetune-one-task",
    reads=("/initialization/finetune", "/task"),
    message="fine-tuning names the weights of one model, and a model of several tasks is put together later",
    hint="remove `initialization.finetune`",
)
def tuned_one_task(case: Case) -> Iterator[Hit]:
    if case.spec.initialization.finetune is not None and isinstance(case.spec.task, MultiTask):
        yield hit(TUNE)


@rule(
    "adapter-freezes",
    reads=("/initialization/finetune",),
    message="an adapter freezes every weight except those in `adapter.train`, so `{key}` has no effect",
    hint="remove `{key}`, and name what learns in `adapter.train`",
)
def adapter_freezes(case: Case) -> Iterator[Hit]:
    tune = case.spec.initialization.finetune
    if tune is None or tune.adapter is None:
        return
    for key in ("freeze", "unfreeze_at"):
        if getattr(tune, key):
            yield hit(f"{TUNE}/{key}", key=key)


@rule(
    "adapter-shares",
    reads=("/initialization/finetune", "/model/sharing"),
    message="parts of the model share weights, and an adapter beside one of them would part them",
    hint="remove `model.sharing`, or fine-tune without an adapter",
)
def adapter_shares(case: Case) -> Iterator[Hit]:
    """Two adapters beside one matrix would make two of it when they are merged."""
    tune = case.spec.initialization.finetune
    if tune is not None and tune.adapter is not None and case.spec.model.sharing:
        yield hit(f"{TUNE}/adapter")


@rule(
    "unfreeze-in-seconds",
    reads=("/initialization/finetune",),
    message="when weights begin to learn must not hang on the clock: the run could not be repeated",
    hint="count in steps or epochs",
)
def unfrozen_in_seconds(case: Case) -> Iterator[Hit]:
    tune = case.spec.initialization.finetune
    for index, later in enumerate(() if tune is None else tune.unfreeze_at):
        if later.at.seconds is not None:
            yield hit(f"{TUNE}/unfreeze_at/{index}/at/seconds")


@rule(
    "finetune-from-nothing",
    reads=("/initialization/finetune", "/initialization/start"),
    message="weights that were only drawn are kept as they are, and nothing was learned that is worth keeping",
    hint="set `initialization.start` to warm or pretrained",
    level="W",
)
def tuned_from_nothing(case: Case) -> Iterator[Hit]:
    tune, begins = case.spec.initialization.finetune, case.spec.initialization.start
    if tune is None or not isinstance(begins, Cold) or case.spec.checkpoint.resume_from is not None:
        return
    if tune.freeze or tune.adapter is not None:
        yield hit(TUNE)
