"""Rules of `checkpoint`."""

from collections.abc import Iterator

from stoker.spec.data import Text
from stoker.spec.derived.automatic import better
from stoker.spec.derived.hugging_face import nearest as nearest_architecture
from stoker.spec.model import Transformer
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.schedule import Plateau
from stoker.text import nearest, shown


@rule(
    "sharing-export",
    reads=("/model/sharing", "/checkpoint/export"),
    message="the Hugging Face format stores separate weights for every part, and `model.sharing` shares them",
    hint="export safetensors only, or remove `model.sharing`",
)
def sharing_exported(case: Case) -> Iterator[Hit]:
    if case.spec.model.sharing and "huggingface" in case.spec.checkpoint.export:
        yield hit("/checkpoint/export")


@rule(
    "monitor-not-logged",
    reads=("/checkpoint", "/task/type", "/evaluation/metrics", "/training/early_stopping", "/schedule"),
    message="the run never reports {monitor}",
    hint="did you mean `{guess}`? Add the metric to `evaluation.metrics` if it is missing there",
)
def monitor_not_logged(case: Case) -> Iterator[Hit]:
    known = case.monitored
    for pointer, monitor, _ in _monitors(case):
        if monitor not in known:
            guess = nearest(monitor, known) or known[0]
            yield hit(f"{pointer}/monitor", known, monitor=shown(monitor), guess=guess)


def _monitors(case: Case) -> Iterator[tuple[str, str, str | None]]:
    """Pointer, metric and mode of everything that watches a metric."""
    checkpoint, stopping = case.spec.checkpoint, case.spec.training.early_stopping
    yield "/checkpoint", checkpoint.monitor, checkpoint.mode
    if stopping is not None:
        yield "/training/early_stopping", stopping.monitor, stopping.mode
    if isinstance(case.spec.schedule, Plateau):
        yield "/schedule", case.spec.schedule.monitor, case.spec.schedule.mode


@rule(
    "monitor-mode",
    reads=("/checkpoint", "/task/type", "/evaluation/metrics", "/training/early_stopping", "/schedule"),
    message="`mode: {mode}` would keep the worst {monitor}",
    hint="set {right}, or leave `mode` out",
)
def monitor_mode(case: Case) -> Iterator[Hit]:
    for pointer, monitor, mode in _monitors(case):
        right = better(case.spec, monitor)
        if mode is not None and right is not None and mode != right:
            yield hit(f"{pointer}/mode", (right,), monitor=monitor, mode=mode, right=right)


@rule(
    "keep-best-needs-validation",
    reads=("/checkpoint", "/data/split"),
    message="`checkpoint.keep_best` watches the validation split, and `data.split.validation` is 0",
    hint="hold out a share, or set keep_best: 0",
)
def keep_best_blind(case: Case) -> Iterator[Hit]:
    if case.spec.checkpoint.keep_best > 0 and case.spec.data.split.validation == 0:
        yield hit("/checkpoint/keep_best")


@rule(
    "huggingface-decoders",
    reads=("/checkpoint/export", "/model"),
    message="export to the Hugging Face format supports transformers that read text; this model is {model}",
    hint="remove huggingface from `checkpoint.export`; safetensors takes any model",
)
def only_decoders_are_exported(case: Case) -> Iterator[Hit]:
    model = case.spec.model
    if "huggingface" not in case.spec.checkpoint.export:
        return
    if not isinstance(model, Transformer) or not isinstance(case.spec.data.source, Text):
        yield hit("/checkpoint/export", ("safetensors",), model=model.type)


@rule(
    "huggingface-architecture",
    reads=("/checkpoint/export", "/model"),
    message="export to the Hugging Face format supports GPT-2, Llama and BERT layouts; the nearest, {architecture}, needs {fields}",
    hint="change those fields of `model`, or remove huggingface from `checkpoint.export`",
)
def known_decoders_are_exported(case: Case) -> Iterator[Hit]:
    model = case.spec.model
    if "huggingface" in case.spec.checkpoint.export and isinstance(model, Transformer):
        architecture, fields = nearest_architecture(model)
        if fields:
            yield hit("/checkpoint/export", ("safetensors",), architecture=architecture, fields="; ".join(fields))


@rule(
    "on-exception-one-process",
    reads=("/checkpoint/on_exception", "/distributed"),
    message="`checkpoint.on_exception` saves the state of one process, and the run has {ranks} ranks",
    hint="remove `checkpoint.on_exception`, or set strategy: single",
)
def exceptions_of_one(case: Case) -> Iterator[Hit]:
    ranks = case.spec.distributed.world_size
    if case.spec.checkpoint.on_exception and ranks > 1:
        yield hit("/checkpoint/on_exception", ranks=ranks)


@rule(
    "fork-needs-host-memory",
    reads=("/checkpoint/background", "/resources/device"),
    message="a forked process cannot read the memory of a GPU, and device is cuda",
    hint="set background: copy, or leave it out",
)
def forks_need_host_memory(case: Case) -> Iterator[Hit]:
    if case.spec.checkpoint.background == "fork" and case.spec.resources.device == "cuda":
        yield hit("/checkpoint/background", ("copy", "off"))
