"""Fills in every field that a spec leaves automatic, so that nobody after it has to guess. Filling in twice changes nothing."""

from collections.abc import Callable
from typing import Any, TypeVar

from stoker.facts import ArrayFacts, DatasetFacts, ImageFacts, TableFacts
from stoker.spec.base import Spec
from stoker.spec.checkpoint import Checkpoint
from stoker.spec.data import Arrays, Csv, ImageFolder, Parquet, Sequence, reads_text
from stoker.spec.data.tokenizer import ByteTokenizer
from stoker.spec.derived.arithmetic import batch_of
from stoker.spec.derived.problem import class_total, distinct_values
from stoker.spec.evaluation import Accuracy, Evaluation, Mae, MaximumMeanDiscrepancy, Perplexity, Rmse
from stoker.spec.job import JobSpec
from stoker.spec.loss import BinaryCrossEntropy, Contested, CrossEntropy, Loss, MeanSquaredError, NonSaturating
from stoker.spec.model import CNN, GAN, GRU, HF, LSTM, MLP, RNN, Layers, TransformerDecoder, TransformerEncoder
from stoker.spec.model.cnn import USUAL_EXPANSION
from stoker.spec.model.layers import Layer, Norm, Pool, RecurrentLayer, Residual
from stoker.spec.model.transformer import LearnedPosition, RotaryPosition, Transformer
from stoker.spec.precision import Precision
from stoker.spec.schedule import WSD, Cyclic, Plateau
from stoker.spec.task import CausalLM, Classification, Generation, MaskedLM, Multilabel, Regression, SingleTask
from stoker.spec.task.multi_task import ClassHead, Head, MultiTask, NumberHead
from stoker.spec.training import EarlyStopping, Training

MAX_CLASSES = 100_000
"""Most classes of a task; beyond it, or with fewer than two, a rule speaks."""


def completed(spec: JobSpec, facts: DatasetFacts | None) -> JobSpec:
    """The spec with automatic fields set, as far as spec and facts say what they are. The result is not validated."""
    for field, fill in FILLS:
        spec = _with(spec, **{field: fill(spec, facts)})
    return spec


P = TypeVar("P", bound=Spec)


def _with(part: P, **changes: Any) -> P:
    """A copy with changes, or the part itself when nothing changes (`Any`: fields of every family)."""
    if all(getattr(part, name) is value for name, value in changes.items()):
        return part
    return part.model_copy(update=changes)


def _seeds(spec: JobSpec, _: DatasetFacts | None) -> Spec:
    part = spec.reproducibility
    return part if part.data_seed is not None else _with(part, data_seed=part.seed)


def _data(spec: JobSpec, facts: DatasetFacts | None) -> Any:
    data = spec.data
    source = data.source
    if facts is not None:
        source = _with(_pinned(source, facts), **_measured(spec, facts))
    if reads_text(source):
        usual = None if isinstance(spec.model, HF) else ByteTokenizer()
        data = _with(data, tokenizer=data.tokenizer or usual, sequence=data.sequence or Sequence())
    strategy = data.split.strategy or _strategy(spec)
    return _with(data, source=source, split=_with(data.split, strategy=strategy))


def _pinned(source: Any, facts: DatasetFacts) -> Any:
    """The source bound to the version that facts describe, unless it names another data set, which a rule reports."""
    name, _, version = source.dataset.partition("@")
    if name != facts.name or (version and int(version) != facts.version):
        return source
    return _with(source, dataset=f"{facts.name}@{facts.version}")


def _measured(spec: JobSpec, facts: DatasetFacts) -> dict[str, Any]:
    source, content = spec.data.source, facts.content
    if isinstance(source, Csv | Parquet) and isinstance(content, TableFacts) and source.columns is None:
        if source.text is not None:
            return {}
        held_back = (*targets_of(spec), spec.data.sample_weight_column)
        return {"columns": tuple(column.name for column in content.columns if column.name not in held_back)}
    if isinstance(source, ImageFolder) and isinstance(content, ImageFacts):
        return {"height": source.height or content.height, "width": source.width or content.width}
    return {}


def targets_of(spec: JobSpec) -> tuple[str, ...]:
    """Target columns, in order; empty where the data set carries its own."""
    match spec.task:
        case Classification(target=str() as target) | Multilabel(target=str() as target) | Regression(target=str() as target):
            return (target,)
        case Multilabel(target=tuple() as targets) | Regression(target=tuple() as targets):
            return targets
        case MultiTask(columns=columns):
            return columns
        case _:
            return ()


def _strategy(spec: JobSpec) -> str:
    match spec.task:
        case Classification():
            return "stratified"
        case Multilabel() | Regression() | MultiTask() | Generation():
            return "random"
        case CausalLM() | MaskedLM():
            return "contiguous"


def _task(spec: JobSpec, facts: DatasetFacts | None) -> Any:
    match spec.task:
        case Classification(num_classes=None):
            total = class_total(spec, facts.content) if facts else None
            return _with(spec.task, num_classes=total if total is not None and 2 <= total <= MAX_CLASSES else None)
        case Regression(num_outputs=None):
            return _with(spec.task, num_outputs=_output_count(spec, facts))
        case Multilabel(num_labels=None):
            return _with(spec.task, num_labels=_output_count(spec, facts))
        case Generation(discriminator_optimizer=None):
            return _with(spec.task, discriminator_optimizer=spec.optimizer)
        case MultiTask(tasks=heads):
            return _with(spec.task, tasks=tuple(_head(head, facts) for head in heads))
        case _:
            return spec.task


def _head(head: Head, facts: DatasetFacts | None) -> Any:
    match head:
        case ClassHead(num_classes=None):
            total = distinct_values(head.target, facts.content) if facts else None
            return _with(
                head, num_classes=total if total is not None and 2 <= total <= MAX_CLASSES else None, loss=head.minimised
            )
        case ClassHead():
            return _with(head, loss=head.minimised)
        case NumberHead():
            return _with(head, num_outputs=head.num_outputs or len(head.columns), loss=head.minimised)


def _output_count(spec: JobSpec, facts: DatasetFacts | None) -> int | None:
    source = spec.data.source
    if isinstance(source, Csv | Parquet):
        return len(targets_of(spec)) or None
    if isinstance(source, Arrays) and facts is not None and isinstance(facts.content, ArrayFacts):
        file = facts.content.files.get(source.targets)
        return None if file is None else (file.shape[1] if len(file.shape) == 2 else 1)
    return None


def _loss(spec: JobSpec, _: DatasetFacts | None) -> Any:
    """Several tasks have one each."""
    if isinstance(spec.task, MultiTask):
        return spec.loss
    return _weighted(spec.loss or usual_loss(spec.task), spec)


def _weighted(loss: Loss, spec: JobSpec) -> Any:
    if isinstance(loss, Contested):
        return loss  # a rule says that samples have no weights there
    weights = spec.data.sample_weight_column is not None and loss.sample_weight_normalization is None
    return _with(loss, sample_weight_normalization="weights") if weights else loss


def usual_loss(task: SingleTask) -> Loss:
    """What a task minimises unless the spec says otherwise."""
    match task:
        case Classification() | CausalLM() | MaskedLM():
            return CrossEntropy()
        case Multilabel():
            return BinaryCrossEntropy()
        case Regression():
            return MeanSquaredError()
        case Generation():
            return NonSaturating()


def _model(spec: JobSpec, _: DatasetFacts | None) -> Any:
    match spec.model:
        case GAN(generator=generator, discriminator=discriminator) as model:
            networks = {"generator": _network(generator), "discriminator": _network(discriminator)}
            return _with(model, **networks)
        case TransformerDecoder() | TransformerEncoder():
            return _transformer(spec.model, spec.data.sequence)
        case MLP() | Layers() | CNN() as model:
            return _network(model)
        case RNN() | LSTM() | GRU() as model:
            text = reads_text(spec.data.source)
            return _with(model, embedding_size=model.embedding_size or (model.hidden_size if text else None))
        case HF():
            return spec.model


def _network(model: MLP | Layers | CNN) -> Any:
    match model:
        case Layers(layers=layers):
            return _with(model, layers=_stack(layers))
        case CNN(block="bottleneck", expansion=None):
            return _with(model, expansion=USUAL_EXPANSION)
        case MLP() | CNN():
            return model


def _transformer(model: Transformer, windows: Sequence | None) -> Any:
    even = model.hidden_size % model.num_heads == 0
    key_dim = model.key_dim or (model.hidden_size // model.num_heads if even else None)
    position = model.position
    if isinstance(position, RotaryPosition) and position.dim is None and key_dim:
        position = _with(position, dim=key_dim)
    if isinstance(position, LearnedPosition) and position.max_length is None and windows is not None:
        position = _with(position, max_length=windows.length)
    return _with(
        model,
        embedding_size=model.embedded,
        ffn_size=model.inner,
        num_kv_heads=model.kv_heads,
        key_dim=key_dim,
        value_dim=model.value_dim or key_dim,
        position=position,
    )


def _stack(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    return tuple(_layer(layer) for layer in layers)


def _layer(layer: Layer) -> Any:
    match layer:
        case Pool(kind="max" | "avg"):
            kernel = layer.kernel_size or 2
            return _with(layer, kernel_size=kernel, stride=layer.stride or kernel, padding=layer.padding or 0)
        case Pool(kind="adaptive_avg" | "adaptive_max"):
            return _with(layer, output_size=layer.output_size or 1)
        case Norm(kind="batch", momentum=momentum):
            tracked = layer.track_running_stats is not False
            return _with(
                layer, momentum=0.1 if momentum is None else momentum, track_running_stats=tracked, sync=bool(layer.sync)
            )
        case RecurrentLayer(cell="rnn"):
            return _with(layer, nonlinearity=layer.nonlinearity or "tanh")
        case Residual(layers=inner, shortcut=around):
            return _with(layer, layers=_stack(inner), shortcut=_stack(around))
        case _:
            return layer


def _resources(spec: JobSpec, _: DatasetFacts | None) -> Any:
    part = spec.resources
    return _with(part, cpus=part.cpus or spec.distributed.world_size)


def _batch(spec: JobSpec, _: DatasetFacts | None) -> Training:
    training, ranks = spec.training, spec.distributed.data_parts
    batch = batch_of(training.batch_size, training.micro_batch_size, training.gradient_accumulation_steps, ranks)
    if batch is None:
        return training  # a rule says why
    return _with(training, micro_batch_size=batch.micro, gradient_accumulation_steps=batch.accumulation)


def _schedule(spec: JobSpec, _: DatasetFacts | None) -> Any:
    part = spec.schedule
    match part:
        case Plateau(mode=None):
            return _with(part, mode=better(spec, part.monitor))
        case Cyclic():
            high = spec.optimizer.lr if part.max_lr is None else part.max_lr
            down = part.step_size_down or part.step_size_up
            return _with(part, base_lr=high / 10 if part.base_lr is None else part.base_lr, max_lr=high, step_size_down=down)
        case WSD(decay_steps=None, decay_ratio=None):
            return _with(part, decay_ratio=0.2)
        case _:
            return part


def _precision(spec: JobSpec, _: DatasetFacts | None) -> Precision:
    part = spec.precision
    return _with(part, loss_scale=part.loss_scale or part.usual_scale)


def _truncation(spec: JobSpec, _: DatasetFacts | None) -> Training:
    training, cut = spec.training, spec.training.tbptt
    return training if cut is None else _with(training, tbptt=_with(cut, stride=cut.stride or cut.steps))


def _evaluation(spec: JobSpec, _: DatasetFacts | None) -> Evaluation:
    part = spec.evaluation
    metrics = part.metrics if part.metrics is not None else _metrics(spec)
    return _with(part, metrics=metrics, batch_size=part.batch_size or _judged_at_once(spec))


def _judged_at_once(spec: JobSpec) -> int | None:
    """As many samples as are trained on, or as many as give so many logits, where those of all are not to be there at once."""
    micro, sequence = spec.training.micro_batch_size, spec.data.sequence
    if micro is not None and sequence is not None and isinstance(spec.loss, CrossEntropy) and spec.loss.chunk_tokens is not None:
        return max(1, min(micro, spec.loss.chunk_tokens // sequence.length))
    return micro


def _metrics(spec: JobSpec) -> tuple[Spec, ...]:
    match spec.task:
        case Classification() | Multilabel():
            return (Accuracy(),)
        case Regression():
            return (Mae(), Rmse())
        case MultiTask(tasks=heads):
            kinds = {type(head) for head in heads}
            return (*((Accuracy(),) if ClassHead in kinds else ()), *((Mae(), Rmse()) if NumberHead in kinds else ()))
        case CausalLM() | MaskedLM():
            return (Perplexity(),)
        case Generation():
            return (MaximumMeanDiscrepancy(),)


def better(spec: JobSpec, monitor: str) -> str | None:
    """min or max, as the monitored metric says; None when no such metric is computed."""
    key = monitor.removeprefix("validation/")
    if key == "loss":
        return "min"
    if isinstance(spec.task, MultiTask):
        return spec.task.modes(spec.evaluation.metrics or ()).get(key)
    return next((metric.mode for metric in spec.evaluation.metrics or () if metric.key == key), None)


def _stopping(spec: JobSpec, _: DatasetFacts | None) -> Training:
    stopping = spec.training.early_stopping
    if stopping is None or stopping.mode is not None:
        return spec.training
    monitor = _monitor(spec, stopping)
    return _with(spec.training, early_stopping=_with(stopping, monitor=monitor, mode=better(spec, monitor)))


def _monitor(spec: JobSpec, part: EarlyStopping | Checkpoint) -> str:
    """What is watched: of a gan not the loss, which says how the networks stand to each other and not how good they are."""
    metrics = spec.evaluation.metrics
    if isinstance(spec.task, Generation) and metrics and "monitor" not in part.model_fields_set:
        return f"validation/{metrics[0].key}"
    return part.monitor


def _checkpoint(spec: JobSpec, _: DatasetFacts | None) -> Any:
    part = spec.checkpoint
    monitor = _monitor(spec, part)
    changes: dict[str, Any] = {"monitor": monitor, "mode": part.mode or better(spec, monitor)}
    if spec.data.split.validation == 0 and "keep_best" not in part.model_fields_set:
        changes["keep_best"] = 0  # nothing says which is best
    return _with(part, **changes)


Fill = Callable[[JobSpec, DatasetFacts | None], Any]
"""Makes one field of a spec complete (`Any`: a value of any family)."""
FILLS: tuple[tuple[str, Fill], ...] = (
    ("data", _data),
    ("task", _task),
    ("model", _model),
    ("loss", _loss),
    ("training", _batch),
    ("resources", _resources),
    ("training", _truncation),
    ("evaluation", _evaluation),
    ("reproducibility", _seeds),
    ("training", _stopping),
    ("checkpoint", _checkpoint),
    ("precision", _precision),
    ("schedule", _schedule),
)
"""Each field and what completes it, in order: a later function reads what earlier ones filled in."""
