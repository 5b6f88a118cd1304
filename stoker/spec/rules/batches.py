"""How batches divide, and what that does to BatchNorm."""

from collections.abc import Iterator

from stoker.spec.derived.arithmetic import batch_of
from stoker.spec.model import CNN, GRU, LSTM, MLP, RNN, Layers, TransformerDecoder, TransformerEncoder
from stoker.spec.model.layers import Layer, Norm, Residual
from stoker.spec.model.parts import BatchNorm
from stoker.spec.rules._networks import Single, networks
from stoker.spec.rules._rule import Case, Hit, Rule, hit


def indivisible(case: Case) -> Iterator[Hit]:
    training, ranks = case.spec.training, case.spec.distributed.data_parts
    micro, accumulation = training.micro_batch_size, training.gradient_accumulation_steps
    if batch_of(training.batch_size, micro, accumulation, ranks) is not None:
        return
    unit = (micro or 1) * (accumulation or 1) * ranks
    fixed = micro is not None and accumulation is not None
    nearest = unit if fixed else max(unit, round(training.batch_size / unit) * unit)
    parts = [f"micro_batch_size {micro}"] if micro else []
    parts += [f"gradient_accumulation_steps {accumulation}"] if accumulation else []
    parts += [f"{ranks} ranks"] if ranks > 1 else []
    yield hit("/training/batch_size", size=training.batch_size, parts=" x ".join(parts), nearest=nearest)


def larger_than_data(case: Case) -> Iterator[Hit]:
    samples, size = case.problem.samples, case.spec.training.batch_size
    if samples is not None and 0 < samples.train < size:
        yield hit("/training/batch_size", size=size, samples=samples.train)


def batch_norm(case: Case) -> str | None:
    """Pointer of the first BatchNorm of the model."""
    return next((found for at, model, _ in networks(case) if (found := batch_norm_of(model, at)) is not None), None)


def batch_norm_of(model: Single, at: str) -> str | None:
    """Of one network, which stands at a pointer."""
    match model:
        case MLP(normalization=BatchNorm(), hidden_sizes=sizes):
            return f"{at}/normalization" if sizes else None
        case CNN(normalization=BatchNorm()):
            return f"{at}/normalization"
        case Layers(layers=layers):
            return _norm_in(layers, f"{at}/layers")
        case TransformerDecoder(normalization=BatchNorm()) | TransformerEncoder(normalization=BatchNorm()):
            return f"{at}/normalization"
        case MLP() | CNN() | RNN() | LSTM() | GRU() | TransformerDecoder() | TransformerEncoder():
            return None


def _norm_in(layers: tuple[Layer, ...], at: str) -> str | None:
    for index, layer in enumerate(layers):
        if isinstance(layer, Norm) and layer.kind == "batch":
            return f"{at}/{index}"
        if isinstance(layer, Residual):
            for key, inside in (("layers", layer.layers), ("shortcut", layer.shortcut)):
                if found := _norm_in(inside, f"{at}/{index}/{key}"):
                    return found
    return None


def batch_norm_alone(case: Case) -> Iterator[Hit]:
    pointer = batch_norm(case)
    if pointer is not None and case.spec.training.micro_batch_size == 1:
        yield hit(pointer)


def batch_norm_last(case: Case) -> Iterator[Hit]:
    """The last batch of an epoch, shared among ranks and cut into micro-batches, must not leave one sample to anyone."""
    pointer, samples, training = batch_norm(case), case.problem.samples, case.spec.training
    micro = training.micro_batch_size
    if pointer is None or samples is None or case.spec.data.loader.drop_last or micro is None or micro == 1:
        return
    last, ranks = samples.train % training.batch_size, case.spec.distributed.data_parts
    if last == 0:
        return
    shares = {last * (rank + 1) // ranks - last * rank // ranks for rank in range(ranks)}
    if any(share % micro == 1 or share == 0 for share in shares):
        yield hit(pointer, last=last)


def batch_norm_accumulates(case: Case) -> Iterator[Hit]:
    pointer, steps = batch_norm(case), case.spec.training.gradient_accumulation_steps
    if pointer is not None and steps is not None and steps > 1:
        yield hit(pointer, micro=case.spec.training.micro_batch_size, size=case.spec.training.batch_size)


DIVISION = ("/training/batch_size", "/training/micro_batch_size", "/training/gradient_accumulation_steps", "/distributed")

BATCH_RULES = (
    Rule(
        "batch-indivisible", "R", DIVISION, indivisible,
        "`training.batch_size` {size} is not made of {parts}", "the nearest batch_size that fits is {nearest}",
    ),
    Rule(
        "batch-larger-than-data", "W", ("/training/batch_size", "/data", "/task"), larger_than_data,
        "one batch of {size} is more than the {samples} training samples: every epoch is one smaller step", "lower `training.batch_size`",
    ),
    Rule(
        "batch-norm-alone", "R", ("/model", *DIVISION), batch_norm_alone,
        "BatchNorm cannot normalise over a micro-batch of one sample", "raise micro_batch_size, or use layer or rms normalisation",
    ),
    Rule(
        "batch-norm-last-batch", "R", ("/model", "/data", "/task", *DIVISION), batch_norm_last,
        "the last batch of an epoch has {last} samples and leaves one or none to some forward pass, which BatchNorm cannot normalise",
        "set `data.loader.drop_last: true`, or change `training.batch_size`",
    ),
    Rule(
        "batch-norm-accumulation", "W", ("/model", *DIVISION), batch_norm_accumulates,
        "BatchNorm sees micro-batches of {micro}, so accumulation does not equal a batch of {size}",
        "use layer or rms normalisation, or no accumulation",
    ),
)  # fmt: skip
